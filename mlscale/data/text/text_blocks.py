"""Text for language models: blocks of bytes, each with the same block shifted by one byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlscale.data.split_rows import Array
from mlscale.data.text.documents import Document, compute_documents_digest
from mlscale.data.text.token_arrays import ArrayTokens


class TextBlocks:
    """Documents one after the other, a zero byte after each, cut into blocks.

    Args:
        documents: at least as much text as a block and the byte after it.
        length: bytes of a block.
        stride: bytes from the start of a block to that of the next.

    Attributes:
        text: all of it.
        tokens: the same: a byte each.
        documents: the texts.
    """

    bad: Mapping[int, str] = {}
    labels = None

    def __init__(self, documents: Sequence[Document], length: int, stride: int) -> None:
        # Other blocks of the same text are other samples.
        self.version = compute_documents_digest(documents) + f" {length}/{stride}"
        self.text = b"".join(document.text + b"\0" for document in documents)
        self._bytes = np.frombuffer(self.text, np.uint8)
        sizes = [len(document.text) + 1 for document in documents]
        self.tokens = ArrayTokens(self._bytes, np.cumsum(sizes, dtype=np.int64))
        self.documents = [document.text for document in documents]
        self._names = [document.name for document in documents]
        # One byte more than a block, for the target of its last byte.
        self._reach, self._stride = np.arange(length + 1, dtype=np.int64), stride

    def __len__(self) -> int:
        # Only whole blocks, each with the byte after it.
        return max(0, (len(self.text) - len(self._reach)) // self._stride + 1)

    def count_tokens(self) -> int:
        """Return the bytes of all documents, and an end for each."""
        return len(self.text)

    def get_key(self, sample: int) -> str:
        """Return `document@byte` of the first byte."""
        document, offset = self.tokens.locate_token(sample * self._stride)
        return f"{self._names[document]}@{offset}"

    def get_document_name(self, number: int) -> str:
        """Return the name of a document."""
        return self._names[number]

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return x and y, int64 (n, length) each: y is x shifted by one."""
        block = self._bytes[samples[:, None] * self._stride + self._reach].astype(np.int64)
        return block[:, :-1].copy(), block[:, 1:].copy()
