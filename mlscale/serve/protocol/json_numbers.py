"""Reads samples from JSON: nested lists of numbers; refuses JSON that takes far more memory than its length."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.servable import cast_input
from mlscale.serve.http.exchange import orjson
from mlscale.serve.http.request_error import Refused
from mlscale.serve.served_model import ServedModel

_DEEPEST = 16
_MOST_DIGITS = 400
_INLINE_BYTES, _AS_ZEROS = 64 << 10, bytes.maketrans(b"123456789", b"0" * 9)
_SHORT, _SOME = 16 << 10, 1024
"""Bytes of JSON that can't take much memory; delimiters that are allowed in addition to those of samples."""


def parse_document(body: bytes | bytearray) -> Any:
    """Return a document; a whole number of too many digits is infinite, which whoever reads it refuses by its place.

    Raises:
        ValueError: it is not JSON; the message has the reason.
    """
    try:
        return _load_document(body)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is binary, not UTF-8 text (byte {error.start + 1})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _load_document(body: bytes | bytearray) -> Any:
    # Of long bodies `json` takes less memory, and orjson rounds whole numbers that 64 bits can't hold.
    if orjson is not None and len(body) <= _INLINE_BYTES and b"0" * 19 not in body.translate(_AS_ZEROS):
        with contextlib.suppress(ValueError):  # `json` reads more, such as NaN, and its messages have the place
            return orjson.loads(body)
    try:
        return json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        # Python converts at most 4,300 digits, and names no place; the other reader is slower.
        return json.loads(body, parse_int=_parse_whole_number)


def _parse_whole_number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def check_expansion(model: ServedModel, text: bytes | bytearray) -> None:
    """Raise if long JSON holds more than a full batch: `{},{},…` takes 25 times its length as Python objects.

    Raises:
        Refused: it holds more (413).
    """
    limits, encoder = model.limits, model.servable.encoder
    if len(text) <= _SHORT or not limits.values:
        return
    if isinstance(encoder, TableEncoder):
        # A name and a text for each cell, in quotes.
        counts = {b",": limits.values, b"[": 0, b"{": limits.samples, b'"': 4 * limits.values}
    else:
        shapes = [spec.shape for spec in encoder.inputs]
        lists = sum(math.prod(shape[:depth]) for shape in shapes for depth in range(len(shape)))
        named = 0 if len(shapes) == 1 else limits.samples
        quotes = 4 * limits.samples + 2 * named * len(shapes)
        counts = {b",": limits.values, b"[": limits.samples * lists, b"{": named, b'"': quotes}
    # Counted in the text, before parsing: afterwards the memory is already taken.
    if any(text.count(sign) > most + _SOME for sign, most in counts.items()):
        raise build_count_refusal(model)


def build_count_refusal(model: ServedModel) -> Refused:
    """Return the refusal of a request in JSON with too many samples."""
    more = "send more as bytes" if model.tensor is not None else "send others in a request of their own"
    return Refused(f"a request in JSON has at most {model.limits.samples} samples: {more}", 413)


def parse_samples(port: Port, data: object) -> NDArray[Any]:
    """Return samples from nested lists, of a batch or of one sample.

    Raises:
        Refused: they are ragged, not numbers, of another shape, or do not fit the dtype.
    """
    array = parse_array(port, data)
    return cast_samples(port, array[None] if array.shape == port.shape[1:] else array)


def parse_array(port: Port, data: object) -> NDArray[Any]:
    """Return nested lists of numbers as an array, int64 or float64; of truth values where the port takes those.

    Raises:
        Refused: they are ragged, not numbers, or too large.
    """
    name = port.name
    # numpy alone would accept strings as numbers, and allocate for each element the size of the longest string.
    level: list[Any] = data if isinstance(data, list) else [data]
    shape: list[int] = []
    if isinstance(data, list):
        shape.append(len(data))
    # Level by level and not recursively: a client decides how deep it goes.
    while level and type(level[0]) is list:
        sizes = set(map(len, level)) if set(map(type, level)) == {list} else set()
        if len(sizes) != 1 or len(shape) >= _DEEPEST:
            raise Refused(f"the data of input '{name}' is ragged, or no list of numbers")
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))
    # `type`, since bool is a subclass of int, and true is not a number.
    kinds = set(map(type, level))
    if kinds == {bool} and port.dtype == "bool":
        return np.array(level, np.bool_).reshape(shape)
    if not kinds <= {int, float}:
        raise Refused(f"the data of input '{name}' is ragged, or no list of numbers")
    try:
        # int64 keeps large integers exact; as float64 they would be rounded above 2**53.
        return np.array(level, np.float64 if float in kinds else np.int64).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise Refused(f"the data of input '{name}' has numbers that are too large") from error


def cast_samples(port: Port, array: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in the dtype and shape of an input.

    Raises:
        Refused: they are of another shape, or do not fit its dtype.
    """
    try:
        return cast_input(array, port)
    except MLScaleError as error:
        raise Refused(format_client_error(error)) from error


def refuse_bad_rows(model: ServedModel, tensors: Mapping[str, NDArray[Any]], where: str) -> None:
    """Raise if a client has packed what no sample is packed to, of which the model would compute an answer.

    Args:
        tensors: as the graph takes them.
        where: the place of a row in the request, with {} for its number.

    Raises:
        Refused: it has; the first of them, with the reason.
    """
    # The graph of format 1 takes tokens, which are not packed.
    if model.servable.format > 1 and (bad := model.servable.encoder.find_bad_rows(tensors)):
        number = min(bad)
        raise Refused(f"{where.format(number)} can't be used: {bad[number]}")


def format_client_error(error: MLScaleError) -> str:
    """Return an error as one sentence for a client."""
    return "; ".join(text for text in (error.what, error.why, error.fix) if text)
