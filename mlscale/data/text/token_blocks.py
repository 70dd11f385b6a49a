"""Sequences of a tokenizer's tokens for language models, each with the same sequence shifted by one token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlscale.data.split_rows import Array
from mlscale.data.text.packing import CONCAT, pack_tokens
from mlscale.data.text.token_arrays import FlatTokens

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
        name_document: returns the name of a document by its number.
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
        name_document: Callable[[int], str],
        documents: Sequence[bytes] = (),
    ) -> None:
        self.tokens, self.documents = tokens, documents
        self._length, self._end, self._name_document = length, end, name_document
        self.packing = pack_tokens(tokens.ends, length, stride, packing)
        # Other sequences of the same tokens are other samples.
        definition = f"{content} {length}/{stride if packing == CONCAT else packing}"
        self.version = f"{hashlib.sha256(definition.encode()).hexdigest()[:16]} {length}"
        counts = None if packing == CONCAT else self.packing.count_tokens()
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
        at = self.packing.list_pieces(sample)[0][0] - (self.weights is None)
        document = int(np.searchsorted(self.tokens.ends, at, side="right"))
        start = int(self.tokens.ends[document - 1]) if document else 0
        return f"{self._name_document(document)}@{at - start}"

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return x and y, int64 (n, length) each: y is x shifted by one; y is `IGNORED` where x is padding."""
        x = np.full((len(samples), self._length), self._end, np.int64)
        y = np.full((len(samples), self._length), IGNORED, np.int64)
        for row, sample in enumerate(samples.tolist()):
            filled = 0
            for start, stop in self.packing.list_pieces(sample):
                size = stop - start
                # One read for both: they differ in the first token and the last one.
                span = self.tokens.take_span(max(start - 1, 0), stop)
                y[row, filled : filled + size] = span[-size:]
                # Before the first document of all is no token; an end is, which `x` has there already.
                x[row, filled + (start == 0) : filled + size] = span[:-1]
                filled += size
        return x, y
