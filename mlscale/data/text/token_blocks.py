"""Sequences of bytes or of a tokenizer's tokens for language models, each with the same one shifted by one token."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.bad_samples import BadSample
from mlscale.data.split_rows import Array
from mlscale.data.text.documents import Document, compute_documents_digest
from mlscale.data.text.packing import CONCAT, BlockPacking, Packing, Sequences, pack_documents
from mlscale.data.text.token_arrays import RESTORE, ArrayTokens, CorruptTokensError, FlatTokens

IGNORED = -100
"""The target of a place that is padding: torch's default of a target that has no loss."""


class TokenBlocks:
    """Documents of tokens as sequences of one length.

    Args:
        tokens: of all documents, each with its end.
        content: the digest of the documents and their tokens.
        length: tokens of a sequence.
        stride: tokens from the start of a block to that of the next, where blocks are cut out of all documents.
        packing: see `mlscale.data.text.packing`.
        end: the token that ends a document; padding has it, too.
        names: of the documents; where there are none they go by their number.
        documents: the texts, where they are in memory.

    Attributes:
        weights: by which the loss of each sequence counts, so that each token counts alike; None where all are full.
    """

    bad: Mapping[int, str] = {}
    labels = None

    def __init__(
        self,
        tokens: FlatTokens,
        content: str,
        *,
        length: int,
        stride: int,
        packing: str,
        end: int,
        names: Sequence[str] = (),
        documents: Sequence[bytes] = (),
    ) -> None:
        self.tokens, self.documents = tokens, documents
        self._length, self._end, self._names = length, end, names
        # Blocks of all text need no ends, which would have to be read.
        self.packing: Sequences = (
            BlockPacking(len(tokens), length, stride)
            if packing == CONCAT
            else pack_documents(tokens.ends, length, packing)
        )
        # Other sequences of the same tokens are other samples.
        definition = f"{content} {length}/{stride if packing == CONCAT else packing}"
        self.version = f"{hashlib.sha256(definition.encode()).hexdigest()[:16]} {length}"
        counts = self.packing.count_tokens() if isinstance(self.packing, Packing) else None
        # By the mean of all sequences and not of a batch: then a gradient does not depend on how a batch is split.
        self.weights = None if counts is None else (counts / max(float(counts.mean()), 1.0)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.packing)

    def count_tokens(self) -> int:
        """Return the tokens of all documents, and an end for each."""
        return len(self.tokens)

    def get_key(self, sample: int) -> str:
        """Return `document@token` of the first token."""
        # As of blocks of bytes: where the sequence starts that the model reads.
        start = self.packing.list_pieces(sample)[0][0] - (self.weights is None)
        document, offset = self.tokens.locate_token(start)
        return f"{self.get_document_name(document)}@{offset}"

    def get_document_name(self, number: int) -> str:
        """Return the name of a document."""
        return self._names[number] if self._names else str(number)

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return x and y, int64 (n, length) each: y is x shifted by one; y is `IGNORED` where x is padding.

        Raises:
            BadSample: a file of tokens has other bytes than were written.
        """
        x = np.full((len(samples), self._length), self._end, np.int64)
        y = np.full((len(samples), self._length), IGNORED, np.int64)
        for row, sample in enumerate(samples.tolist()):
            filled = 0
            for start, stop in self.packing.list_pieces(sample):
                size = stop - start
                # One read for both: they differ in the first token and the last one.
                span = self._take_span(sample, max(start - 1, 0), stop)
                y[row, filled : filled + size] = span[-size:]
                # The first document of all has no token before it: `x` keeps the end that it was filled with.
                x[row, filled + (start == 0) : filled + size] = span[:-1]
                filled += size
        return x, y

    def _take_span(self, sample: int, start: int, stop: int) -> Array:
        try:
            return self.tokens.take_span(start, stop)
        except CorruptTokensError as error:
            bad = BadSample(sample, self.get_key(sample), "has other tokens than were written", why=str(error))
            # Tokens can be written again from their texts: to go on without them would be the second best.
            bad.fix = RESTORE
            raise bad from error


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
