"""Checksums of the blocks of a file of tokens, each compared when the block is first read.

A digest of the whole file would have to read it all at each start. A block is read from the disk anyhow: to compare it
costs a few microseconds once, and nothing afterwards.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
