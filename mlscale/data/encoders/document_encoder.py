"""The encoder of documents for language models: bytes as tokens, in windows of the length that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import INPUT, EncodedSamples, Encoder, TensorSpec
from mlscale.data.encoders.text_encoder import check_length, convert_to_bytes

SCORED = "scored"
"""The tensor of the first position of a window whose loss counts, and of the one after the last."""
BYTES = "bytes"
END = 0
"""The token that ends a document, and stands before one."""


@dataclass(frozen=True)
class DocumentEncoder(Encoder):
    """A document as windows of its UTF-8 bytes; a document has a row for each of them.

    The loss of every byte, and of the end, counts once. A document that is longer than the context is read in windows
    that overlap by half: each byte after the first window has at least half of the context before it.

    Args:
        length: bytes of context.
    """

    kind: ClassVar[str] = "document"
    graph_start: ClassVar[str] = "bytes"
    length: int

    def __post_init__(self) -> None:
        check_length(self.length)

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return 256

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        # One token more than the context: that of its last position is predicted, too.
        return TensorSpec(INPUT, "int64", (self.length + 1,)), TensorSpec(SCORED, "int64", (2,))

    @property
    def graph_inputs(self) -> tuple[TensorSpec, ...]:
        return TensorSpec(BYTES, "uint8", (self.length + 1,)), TensorSpec(SCORED, "int64", (2,))

    def describe_raw_input(self) -> dict[str, Any]:
        return {"type": "text", "encoding": "utf-8", "max_bytes": None}

    def describe_settings(self) -> dict[str, Any]:
        return {"length": self.length, "end": END, "unit": "byte"}

    @classmethod
    def parse_settings(cls, settings: Mapping[str, Any]) -> Self:
        # A later version may have other tokens: to read those as bytes would give wrong losses without an error.
        if settings["unit"] != "byte" or settings["end"] != END:
            raise ValueError(f"tokens of the unit {settings['unit']!r}, ended by {settings['end']!r}")
        return cls(int(settings["length"]))

    def encode_sample(self, raw: str | bytes) -> dict[str, NDArray[Any]]:
        """Return the first window of a document."""
        windows = self.encode_samples([raw])
        # The exception of one sample has the reason alone, as in the other encoders.
        if windows.bad:
            raise ValueError(windows.bad[0])
        return {name: rows[0] for name, rows in windows.tensors.items()}

    def encode_samples(self, raw: Sequence[str | bytes]) -> EncodedSamples:
        packed = self.pack_samples(raw)
        return packed._replace(tensors=self.unpack_samples(packed.tensors))

    def unpack_samples(self, packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {INPUT: packed[BYTES].astype(np.int64), SCORED: packed[SCORED]}

    def pack_samples(self, raw: Sequence[str | bytes]) -> EncodedSamples:
        counts = np.zeros(len(raw), np.int64)
        rows: list[NDArray[np.uint8]] = []
        scored: list[tuple[int, int]] = []
        bad: dict[int, str] = {}
        for number, sample in enumerate(raw):
            try:
                content = _check_document(sample)
            except ValueError as error:
                bad[number] = str(error)
                continue
            before = len(rows)
            self._cut_windows(content, rows, scored)
            counts[number] = len(rows) - before
        windows = np.stack(rows) if rows else np.zeros((0, self.length + 1), np.uint8)
        tensors: dict[str, NDArray[Any]] = {BYTES: windows, SCORED: np.array(scored, np.int64).reshape(-1, 2)}
        return EncodedSamples(tensors, bad, counts)

    def find_bad_rows(self, packed: Mapping[str, NDArray[Any]]) -> dict[int, str]:
        first, last = packed[SCORED].T
        bad = np.flatnonzero((first < 0) | (first >= last) | (last > self.length)).tolist()
        # Without a position that is scored the loss would be 0, the best that there is.
        wanted = f"not two positions of 0 to {self.length}, the first before the second"
        return {row: f"it is scored from {first[row]} to {last[row]}, {wanted}" for row in bad}

    def count_windows(self, size: int) -> int:
        """Return the number of windows of a document of `size` bytes."""
        # Of its bytes and its end the first window predicts `length`, each later one half as many.
        return 1 + max(0, -(-(size + 1 - self.length) // self._step))

    def compute_longest(self, windows: int) -> int:
        """Return the most bytes of a document that is read in so many windows."""
        return self.length + (windows - 1) * self._step - 1

    def count_bytes(self, packed: Mapping[str, NDArray[Any]], size: int) -> int:
        """Return the bytes of `size` packed documents, without their ends."""
        scored = packed[SCORED]
        return int((scored[:, 1] - scored[:, 0]).sum()) - size

    @property
    def _step(self) -> int:
        return max(1, self.length // 2)

    def _cut_windows(self, content: bytes, rows: list[NDArray[np.uint8]], scored: list[tuple[int, int]]) -> None:
        # An end stands before it, too: the first byte is predicted from something, and so is counted.
        tokens = np.frombuffer(bytes([END]) + content + bytes([END]), np.uint8)
        last, step, done, start = len(tokens) - 1, self._step, 0, 0
        while done < last:
            row = np.full(self.length + 1, END, np.uint8)
            part = tokens[start : start + self.length + 1]
            row[: len(part)] = part
            rows.append(row)
            # What an earlier window has scored already is context here, and does not count again.
            scored.append((done - start, min(self.length, last - start)))
            done, start = min(start + self.length, last), start + step


def _check_document(sample: str | bytes) -> bytes:
    content = convert_to_bytes(sample)
    if not content:
        raise ValueError("it is empty")
    if END in content:
        raise ValueError(f"byte {content.index(END) + 1} is zero, which ends a document")
    return content
