"""Compare encoded validation samples: training's tensors, those of the stored encoder, and those of the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, EncodedSamples, Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.stored_encoder import parse_encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import PADDING, TextEncoder
from mlscale.export.encoder_parity.difference import Cause, EncoderDifference, Finding, are_close, format_values
from mlscale.export.encoder_parity.graph_part import cut_encoder_part
from mlscale.export.encoder_parity.image_causes import find_normalised_difference, find_pixel_difference
from mlscale.export.encoder_parity.table_causes import find_table_difference
from mlscale.export.encoder_parity.text_causes import find_text_difference
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.validation_samples import SampleBatch

_SHARE = 1e-5
"""Of normalised pixels: a division may be rounded in another way. All else is computed bitwise equally."""
_MOST = 512
"""Samples that a cause is finding by: from the first batch that differs on."""
_NOTHING = -1  # in position of a token, where a row ends


class EncoderComparison:
    """Compares batch by batch; the first that differs and those after it are kept, to find the cause.

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
        self._batches: dict[bool, list[SampleBatch]] = {False: [], True: []}
        self._sides: dict[bool, list[tuple[NDArray[Any], NDArray[Any]]]] = {False: [], True: []}
        self._counts = {False: 0, True: 0}
        self._seen = 0

    def add_batch(self, batch: SampleBatch, packed: EncodedSamples) -> None:
        """Compare a batch of samples that the encoder takes.

        Args:
            batch: as training has it.
            packed: as the graph takes it.
        """
        keys = batch.keys or [f"sample {self._seen + row + 1}" for row in range(len(batch.y))]
        self._seen += len(batch.y)
        self._compare(batch._replace(keys=keys), *self._encode_outside(batch), in_graph=False)
        # What the servable encodes otherwise before the graph may not fit into it.
        if self._part is not None and not self._batches[False]:
            self._compare(batch._replace(keys=keys), *self._encode_inside(batch, packed), in_graph=True)

    def find_difference(self) -> EncoderDifference | None:
        """Return the first difference and its likely cause: outside the graph, else inside; None without one."""
        # The one outside comes first: what differs there explains what would differ inside.
        for in_graph in (False, True):
            if self._batches[in_graph]:
                return self._explain(in_graph)
        return None

    def _compare(self, batch: SampleBatch, trained: NDArray[Any], exported: NDArray[Any], *, in_graph: bool) -> None:
        differing = self._batches[in_graph]
        if not differing and trained.shape == exported.shape and are_close(trained, exported, _SHARE / 10).all():
            return
        # Batches of another width (texts padded to their longest) can't be put under one another.
        if self._counts[in_graph] < _MOST and (
            not differing or self._sides[in_graph][0][0].shape[1:] == trained.shape[1:]
        ):
            differing.append(batch)
            self._sides[in_graph].append((trained, exported))
            self._counts[in_graph] += len(batch.y)

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

    def _explain(self, in_graph: bool) -> EncoderDifference:
        trained, exported = (np.concatenate(parts) for parts in zip(*self._sides[in_graph], strict=True))
        samples = [sample for batch in self._batches[in_graph] for sample in batch.samples]
        keys = [key for batch in self._batches[in_graph] for key in batch.keys or ()]
        # A cause may find nothing where the sides differ in a way that it does not predict.
        finding = self._find(trained, exported, samples, in_graph=in_graph) or _find_anything(trained, exported)
        return EncoderDifference(
            finding.position, keys[finding.row], *finding.values, finding.cause, finding.detail, in_graph
        )

    def _find(
        self, trained: NDArray[Any], exported: NDArray[Any], samples: list[Any], *, in_graph: bool
    ) -> Finding | None:
        encoder = self._encoder
        if isinstance(encoder, TableEncoder) and isinstance(self._stored, TableEncoder):
            return find_table_difference(encoder, trained, exported, samples, self._stored.feature_names)
        if encoder.graph_start == "tokens":
            # The causes are those of bytes; what a tokenizer does otherwise is shown by the first token that differs.
            return None
        if isinstance(encoder, TextEncoder):
            return find_text_difference(trained, exported, samples, PADDING)
        if isinstance(encoder, DocumentEncoder):
            return find_text_difference(trained, exported, samples, _NOTHING) if not in_graph else None
        if isinstance(encoder, ImageEncoder):
            if in_graph:
                return find_normalised_difference(encoder, trained, exported, _SHARE)
            return find_pixel_difference(encoder, trained, exported, samples)
        return None


def _find_anything(trained: NDArray[Any], exported: NDArray[Any]) -> Finding:
    """Return the first value that differs, of tensors without a known structure."""
    if trained.shape != exported.shape:
        return Finding("the shape", 0, (str(trained.shape[1:]), str(exported.shape[1:])), Cause.UNKNOWN)
    row, *position = (int(index[0]) for index in np.nonzero(~are_close(trained, exported, 0.0)))
    first, second = (format_values(side[row][tuple(position)]) for side in (trained, exported))
    return Finding(f"value {position}", row, (first, second), Cause.UNKNOWN)


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
