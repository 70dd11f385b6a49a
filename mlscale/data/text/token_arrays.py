"""Tokens of documents one after the other, in memory or in maps of files, and where each document ends.

Blocks of a file have checksums, each compared when the block is first read. A digest of the whole file would have
to read it all at each start. A block is read from the disk anyhow: to compare it costs a few microseconds once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
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


SUMS_SUFFIX = ".sums"
"""Of the file of the CRC-32 of each block, uint32, little-endian."""
BLOCK_BYTES = 1 << 14
"""Less than what the system reads ahead of a mapped file, so that a check reads hardly more than its sequence does."""
RESTORE = "mlscale prepare to=<a new folder>, with the words that wrote it; or copy the folder again"
"""The fix of a folder whose files have other bytes than were written."""


class CorruptTokensError(ValueError):
    """A block has other bytes than were written."""


def compute_block_sums(content: bytes) -> bytes:
    """Return the CRC-32 of each block of a file, as `SUMS_SUFFIX` files have them."""
    # A view: slices of bytes would be copies.
    view = memoryview(content)
    sums = [zlib.crc32(view[at : at + BLOCK_BYTES]) for at in range(0, len(view), BLOCK_BYTES)]
    return np.array(sums, "<u4").tobytes()


def count_blocks(size: int) -> int:
    """Return the number of blocks of a file of so many bytes."""
    return -(-size // BLOCK_BYTES)


class BlockChecks:
    """The blocks of a mapped file, and which of them are still to be compared.

    Args:
        path: of the file, for errors.
        tokens: of the file, mapped.
        sums: the CRC-32 of each block, uint32 (blocks,).
    """

    def __init__(self, path: Path, tokens: NDArray[Any], sums: NDArray[Any]) -> None:
        self._path, self._itemsize, self._sums = path, tokens.itemsize, sums
        self._content = tokens.view(np.uint8)
        # A byte for each block: 64 MB for a file of a terabyte.
        self._is_new = np.ones(len(sums), np.bool_)

    def check_tokens(self, start: int, stop: int) -> None:
        """Compare the blocks of the tokens from `start` up to `stop` that have not been read before.

        Raises:
            CorruptTokensError: one has other bytes than were written.
        """
        first, last = start * self._itemsize // BLOCK_BYTES, count_blocks(stop * self._itemsize)
        # The usual case, once an epoch has passed: a single look-up.
        for block in (first + np.flatnonzero(self._is_new[first:last])).tolist():
            at = block * BLOCK_BYTES
            content = self._content[at : at + BLOCK_BYTES]
            if zlib.crc32(content.data) != int(self._sums[block]):
                raise CorruptTokensError(
                    f"bytes {at:,} to {at + len(content):,} of {str(self._path)!r} have another CRC-32 than was written"
                )
            # Only now: a corrupt block is an error each time that it is read.
            self._is_new[block] = False
