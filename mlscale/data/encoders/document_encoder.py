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

    Attributes:
        unit: what a token is.
        most_bytes_of_token: how many bytes of text a token stands for, at the most that is usual.
        packed_name: the tensor of windows that a graph takes.
        packed_dtype: numpy's type of it.
    """

    kind: ClassVar[str] = "document"
    graph_start: ClassVar[str] = "bytes"
    unit: ClassVar[str] = "byte"
    most_bytes_of_token: ClassVar[int] = 1
    packed_name: ClassVar[str] = BYTES
    packed_dtype: ClassVar[type[np.integer[Any]]] = np.uint8
    length: int

    def __post_init__(self) -> None:
        check_length(self.length)

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return 256

    @property
    def end(self) -> int:
        """The token that ends a document, and stands before one."""
        return END

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        # One token more than the context: that of its last position is predicted, too.
        return TensorSpec(INPUT, "int64", (self.length + 1,)), TensorSpec(SCORED, "int64", (2,))

    @property
    def graph_inputs(self) -> tuple[TensorSpec, ...]:
        windows = TensorSpec(self.packed_name, np.dtype(self.packed_dtype).name, (self.length + 1,))
        return windows, TensorSpec(SCORED, "int64", (2,))

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
        return {INPUT: packed[self.packed_name].astype(np.int64), SCORED: packed[SCORED]}

    def pack_samples(self, raw: Sequence[str | bytes]) -> EncodedSamples:
        counts = np.zeros(len(raw), np.int64)
        rows: list[NDArray[Any]] = []
        scored: list[tuple[int, int]] = []
        bad: dict[int, str] = {}
        for number, sample in enumerate(raw):
            try:
                tokens = self.tokenize_document(sample)
            except ValueError as error:
                bad[number] = str(error)
                continue
            before = len(rows)
            self._cut_windows(tokens, rows, scored)
            counts[number] = len(rows) - before
        windows = np.stack(rows) if rows else np.zeros((0, self.length + 1), np.int64)
        return EncodedSamples(self.pack_windows(windows, np.array(scored, np.int64).reshape(-1, 2)), bad, counts)

    def pack_windows(self, windows: NDArray[Any], scored: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return windows of tokens (n, length + 1) and what is scored in each, (n, 2), as the graph takes them."""
        return {self.packed_name: windows.astype(self.packed_dtype), SCORED: scored}

    def tokenize_document(self, sample: str | bytes) -> NDArray[Any]:
        """Return the tokens of a document, without its end.

        Raises:
            ValueError: it is empty, or holds the token that ends a document.
        """
        content = convert_to_bytes(sample)
        if not content:
            raise ValueError("it is empty")
        if END in content:
            raise ValueError(f"byte {content.index(END) + 1} is zero, which ends a document")
        return np.frombuffer(content, np.uint8)

    def decode_tokens(self, rows: Sequence[NDArray[Any]]) -> list[bytes]:
        """Return the text of each row of tokens, none of which ends a document."""
        return [row.astype(np.uint8).tobytes() for row in rows]

    def split_documents(self, block: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the pieces of documents in a block of tokens, without the ends between them."""
        parts = np.split(block, np.flatnonzero(block == self.end))
        return [part[part != self.end] for part in parts]

    def find_longest_pieces(self, blocks: NDArray[Any]) -> list[NDArray[Any]]:
        """Return of each block, (n, …), the tokens of the longest piece of a document."""
        return [max(self.split_documents(block), key=len) for block in blocks]

    def find_bad_rows(self, packed: Mapping[str, NDArray[Any]]) -> dict[int, str]:
        first, last = packed[SCORED].T
        bad = np.flatnonzero((first < 0) | (first >= last) | (last > self.length)).tolist()
        # Without a position that is scored the loss would be 0, the best that there is.
        wanted = f"not two positions of 0 to {self.length}, the first before the second"
        return {row: f"it is scored from {first[row]} to {last[row]}, {wanted}" for row in bad}

    def count_windows(self, size: int) -> int:
        """Return the number of windows of a document of `size` tokens; of as many bytes it has no more."""
        # Of its tokens and its end the first window predicts `length`, each later one half as many.
        return 1 + max(0, -(-(size + 1 - self.length) // self._step))

    @property
    def _step(self) -> int:
        return max(1, self.length // 2)

    def _cut_windows(self, content: NDArray[Any], rows: list[NDArray[Any]], scored: list[tuple[int, int]]) -> None:
        # An end stands before it, too: the first token is predicted from something, and so is counted.
        tokens = np.concatenate([[self.end], content, [self.end]])
        last, step, done, start = len(tokens) - 1, self._step, 0, 0
        while done < last:
            row = np.full(self.length + 1, self.end, self.packed_dtype)
            part = tokens[start : start + self.length + 1]
            row[: len(part)] = part
            rows.append(row)
            # What an earlier window has scored already is context here, and does not count again.
            scored.append((done - start, min(self.length, last - start)))
            done, start = min(start + self.length, last), start + step
