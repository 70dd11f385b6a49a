"""What a request to a model may hold: as much as a full batch takes, so that memory and time have a bound."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.table_columns import CategoryColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder

if TYPE_CHECKING:
    from mlscale.data.encoders.encoder import Encoder
    from mlscale.export.servable import Servable

_NUMBER_BYTES, _LONG_NUMBER_BYTES, _MORE_BYTES = {"uint8": 8}, 24, 64 << 10
"""Bytes of a number in JSON by its dtype, those of any other, and bytes of the rest of a request."""
_FEW_VALUES, _FEW_CELLS, _FEW_TEXTS = 16 << 10, 4096, 1024
"""Numbers, cells of a table, and texts of a request in JSON that every model takes, however small its batch is."""
_READ_BYTES = 128
"""Bytes of memory that a number takes while it is parsed: an object, and its slots in lists and arrays."""
_CELL_BYTES = 64
"""Bytes of a cell in JSON, without its name and its category."""
_ESCAPED_BYTES, _TEXT_BYTES = 6, 1 << 20
"""Bytes of a byte of text in JSON, escaped; bytes of a text of its own that every model takes: the rest is cut off."""


@dataclass(frozen=True)
class RequestLimits:
    """The most that one request may hold.

    Attributes:
        samples: in JSON.
        values: numbers, or cells of a table, in JSON.
        json_bytes: of JSON.
        json_memory_bytes: bytes of memory that reading the JSON may take, without copies of its text.
    """

    samples: int
    values: int
    json_bytes: int
    json_memory_bytes: int


def compute_request_limits(servable: Servable, max_batch: int) -> RequestLimits:
    """Return the limits of a model whose full batch has `max_batch` samples."""
    encoder = servable.encoder
    if isinstance(encoder, TableEncoder):
        cells = len(encoder.columns)
        # More rows than a batch where they are short: they are read in the event loop up to 64 KiB.
        samples = max(max_batch, _FEW_CELLS // cells)
        json_bytes = samples * _count_row_bytes(encoder) + _MORE_BYTES
        return RequestLimits(samples, samples * cells, json_bytes, 2 * json_bytes + samples * cells * _READ_BYTES)
    # Signs can't be counted in texts before they are parsed, so the bytes alone are limited.
    if servable.format > 1 and isinstance(encoder, TextEncoder | DocumentEncoder):
        json_bytes = max_batch * max(encoder.length, 1024) * _ESCAPED_BYTES + _MORE_BYTES
        return RequestLimits(max(max_batch, _FEW_TEXTS), 0, json_bytes, 4 * json_bytes)
    numbers = sum(math.prod(spec.shape) for spec in encoder.inputs)
    values = max(max_batch * numbers, _FEW_VALUES)
    number_bytes = max(_NUMBER_BYTES.get(spec.dtype, _LONG_NUMBER_BYTES) for spec in encoder.inputs)
    return RequestLimits(max(1, values // numbers), values, values * number_bytes + _MORE_BYTES, values * _READ_BYTES)


def compute_text_limit(encoder: Encoder, max_rows: int) -> int:
    """Return the most bytes of a text that is sent by itself: what a queue of `max_rows` rows holds of it."""
    if isinstance(encoder, DocumentEncoder):
        # A document is read in windows that overlap by half.
        return (max_rows * max(1, encoder.length // 2) + encoder.length) * encoder.most_bytes_of_token
    return max(_TEXT_BYTES, encoder.length) if isinstance(encoder, TextEncoder) else _MORE_BYTES


def _count_row_bytes(encoder: TableEncoder) -> int:
    size = 0
    for column in encoder.columns:
        texts = column.values if isinstance(column, CategoryColumn) else ()
        longest = max((len(json.dumps(text)) for text in texts), default=0)
        size += len(json.dumps(column.name)) + longest + _CELL_BYTES
    return size
