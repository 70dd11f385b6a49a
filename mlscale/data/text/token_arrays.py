"""Tokens of documents one after the other, in memory or in maps of files, and where each document ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 512  # documents, which the package divides over the cores


class FlatTokens(Protocol):
    """The tokens of documents one after the other, each with its end.

    Attributes:
        ends: the place after the end of each document, int64 (documents,).
    """

    @property
    def ends(self) -> NDArray[np.int64]: ...
    def __len__(self) -> int: ...
    def take_span(self, start: int, stop: int) -> NDArray[Any]:
        """Return the tokens from `start` up to `stop`."""

    def locate_token(self, token: int) -> tuple[int, int]:
        """Return the number of the document of a token, and its place in it."""


class ArrayTokens:
    """Tokens in memory.

    Args:
        tokens: of all documents.
        ends: see `FlatTokens`.
    """

    def __init__(self, tokens: NDArray[Any], ends: NDArray[np.int64]) -> None:
        self.tokens, self.ends = tokens, ends

    def __len__(self) -> int:
        return len(self.tokens)

    def take_span(self, start: int, stop: int) -> NDArray[Any]:
        return self.tokens[start:stop]

    def locate_token(self, token: int) -> tuple[int, int]:
        document = int(np.searchsorted(self.ends, token, side="right"))
        return document, token - (int(self.ends[document - 1]) if document else 0)


def choose_token_type(vocabulary: int) -> np.dtype[Any]:
    """Return the smallest type of ids from 0 to `vocabulary` - 1 that files and arrays have here."""
    return np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)


def join_rows(rows: Iterable[NDArray[Any]], vocabulary: int) -> ArrayTokens:
    """Return rows of tokens one after the other, in the smallest type."""
    kind = choose_token_type(vocabulary)
    parts = [row.astype(kind) for row in rows]
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return ArrayTokens(np.concatenate(parts) if parts else np.zeros(0, kind), ends)


def encode_in_parts(
    texts: Iterable[bytes], encode: Callable[[Sequence[bytes]], Iterable[NDArray[Any]]]
) -> Iterator[NDArray[Any]]:
    """Yield the tokens of each text. Few texts at a time are Python objects, which take ten times the memory."""
    remaining = iter(texts)
    while part := list(islice(remaining, _AT_ONCE)):
        yield from encode(part)
