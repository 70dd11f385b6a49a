"""Compare a servable's encoder with training's own pipeline, on the same raw samples: tensors, before any output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, EncodedSamples, Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.stored_encoder import parse_encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.graphs.encoder_graph import cut_encoder_part
from mlscale.export.validation_samples import SampleBatch

_SHARE = 1e-6
"""Of a float, at least of 1: about eight rounding steps of float32. All else is equal."""
_NOTHING = -1  # in position of a token, where a row ends


@dataclass(frozen=True)
class EncoderDifference:
    """How a servable encodes a sample otherwise than training: the largest difference of the first batch that has one.

    Attributes:
        position: the column, channel or token, in words.
        key: the sample's name.
        trained: what training has there.
        exported: what the servable has.
        in_graph: the part of the encoder that is inside the graph differs; else the one before it.
    """

    position: str
    key: str
    trained: str
    exported: str
    in_graph: bool

    def __str__(self) -> str:
        where = "the graph encodes" if self.in_graph else "the servable encodes"
        return f"{where} {self.position} of {self.key} as {self.exported}, and training as {self.trained}"

    def as_dict(self) -> dict[str, Any]:
        """Return the difference for parity.json."""
        return asdict(self)


class EncoderComparison:
    """Compares batch by batch, until one differs.

    Args:
        encoder: training's.
        content: the exported model.
        stored: the servable's encoder; by default training's, written and read again, as a servable does.
    """

    def __init__(self, encoder: Encoder, content: bytes, stored: Encoder | None = None) -> None:
        self._encoder = encoder
        # Through JSON, so that what the document loses (a type, an order) is found here and not by a client.
        self._stored = stored or parse_encoder(json.loads(json.dumps(encoder.to_document())), where="servable.yaml")
        part = cut_encoder_part(content, encoder)
        self._part = OnnxEngine(part, where="the encoder's part of model.onnx") if part else None
        self._outside: EncoderDifference | None = None
        self._inside: EncoderDifference | None = None
        self._seen = 0

    def add_batch(self, batch: SampleBatch, packed: EncodedSamples) -> None:
        """Compare a batch of samples that the encoder takes.

        Args:
            batch: as training has it.
            packed: as the graph takes it.
        """
        keys = batch.keys or [f"sample {self._seen + row + 1}" for row in range(len(batch.y))]
        self._seen += len(batch.y)
        # What the servable encodes otherwise before the graph may not fit into it.
        if self._outside is None:
            self._outside = self._compare(*self._encode_outside(batch), keys, in_graph=False)
        if self._part is not None and self._outside is None and self._inside is None:
            self._inside = self._compare(*self._encode_inside(batch, packed), keys, in_graph=True)

    def find_difference(self) -> EncoderDifference | None:
        """Return the difference: outside the graph, which explains what would differ inside, else inside; or None."""
        return self._outside or self._inside

    def _compare(
        self, trained: NDArray[Any], exported: NDArray[Any], keys: list[str], *, in_graph: bool
    ) -> EncoderDifference | None:
        if trained.shape != exported.shape:
            before, after = (str(list(side.shape[1:])) for side in (trained, exported))
            return EncoderDifference(self._describe_shape(), keys[0], before, after, in_graph)
        if (worst := _find_largest_difference(trained, exported)) is None:
            return None
        row, *index = worst
        before, after = (_format_value(side[worst].item()) for side in (trained, exported))
        return EncoderDifference(self._describe_position(index), keys[row], before, after, in_graph)

    def _describe_shape(self) -> str:
        if isinstance(self._encoder, TableEncoder) and isinstance(self._stored, TableEncoder):
            names = set(self._encoder.feature_names) ^ set(self._stored.feature_names)
            return f"the features, which differ by {', '.join(sorted(names)[:3])}," if names else "the features"
        return "the shape"

    def _describe_position(self, index: list[int]) -> str:
        """Return in words where in a sample's tensor a difference is."""
        if isinstance(self._encoder, TableEncoder):
            names = [column.name for column in self._encoder.columns for _ in column.names]
            return f"the column {names[index[0]]!r}"
        if isinstance(self._encoder, ImageEncoder) and len(index) == 3:
            channel, y, x = index
            return f"channel {channel + 1} at ({y}, {x})"
        if isinstance(self._encoder, TextEncoder | DocumentEncoder) and len(index) == 1:
            return f"token {index[0] + 1}"
        return f"value {index}"

    def _encode_outside(self, batch: SampleBatch) -> tuple[NDArray[Any], NDArray[Any]]:
        if isinstance(self._stored, DocumentEncoder):
            if self._encoder.graph_start == "bytes":
                return _align_documents(self._stored, batch)
            # The tokens of a text depend on what is before it: a piece from the middle of a document may have others
            # than in its block. Both encoders read the piece by itself.
            return _encode_pieces(self._encoder, batch), _encode_pieces(self._stored, batch)
        encoded = self._stored.encode_samples(batch.samples)
        # Several tensors have no definition but themselves.
        names = list(batch.tensors) if len(batch.tensors) > 1 else [next(iter(encoded.tensors))]
        if len(names) == 1:
            return batch.raw, encoded.tensors[names[0]]
        flat = [
            np.concatenate([np.asarray(side[name], np.float64).reshape(len(batch.y), -1) for name in names], 1)
            for side in (batch.tensors, encoded.tensors)
        ]
        return flat[0], flat[1]

    def _encode_inside(self, batch: SampleBatch, packed: EncodedSamples) -> tuple[NDArray[Any], NDArray[Any]]:
        assert self._part is not None
        given = {port.name: packed.tensors[port.name] for port in self._part.inputs}
        (exported,) = self._part.compute(given).values()
        if isinstance(self._encoder, ImageEncoder):
            # A client's pixels of training's: what differs before has been found outside.
            return np.asarray(batch.x.float().numpy()), exported
        return batch.raw, exported


def _find_largest_difference(first: NDArray[Any], second: NDArray[Any]) -> tuple[int, ...] | None:
    """Return where two arrays of one shape differ most; None where they agree, floats within a share."""
    equal = np.asarray(first == second)
    # The difference of two infinities is NaN, of which numpy would warn.
    with np.errstate(invalid="ignore"):
        error = np.abs(first.astype(np.float64) - second)
        if "f" in (first.dtype.kind, second.dtype.kind):
            equal |= (error <= _SHARE * np.maximum(1.0, np.abs(first))) | (np.isnan(first) & np.isnan(second))
    if equal.all():
        return None
    worst = np.where(equal, -1.0, np.nan_to_num(error, nan=np.inf)).argmax()
    return tuple(int(index) for index in np.unravel_index(worst, first.shape))


def _format_value(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _align_documents(encoder: DocumentEncoder, batch: SampleBatch) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the tokens of a document's piece in its block, and those that the encoder gives for the piece alone.

    A block of training text is no document: what can be compared are the bytes between two ends.
    """
    tensors: Mapping[str, NDArray[Any]] = batch.tensors
    width = tensors[INPUT].shape[1]
    sides = [np.full((len(batch.samples), width), _NOTHING, np.int64) for _ in range(2)]
    for row, piece in enumerate(batch.samples):
        if not piece:
            continue
        block = tensors[INPUT][row]
        # As bytes, since numpy has no search for a sequence; a piece has no end token, which is byte 0.
        at = max(block.astype(np.uint8).tobytes().find(piece), 0)
        size = min(len(piece), width - at, encoder.length)
        # One token stands before a document.
        tokens = encoder.encode_sample(piece)[INPUT][1 : 1 + size]
        sides[0][row, :size], sides[1][row, : len(tokens)] = block[at : at + size], tokens
    return sides[0], sides[1]


def _encode_pieces(encoder: Encoder, batch: SampleBatch) -> NDArray[Any]:
    """Return the first window of each piece of a document, (n, length + 1); no tokens of an empty one."""
    rows = np.full(batch.tensors[INPUT].shape, _NOTHING, np.int64)
    for row, piece in zip(rows, batch.samples, strict=True):
        if piece:
            row[:] = encoder.encode_sample(piece)[INPUT]
    return rows
