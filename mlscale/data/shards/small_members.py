"""Small members, such as labels, that are kept in the index: remote shards start without being downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MAX_BYTES = 64
"""Of a member that is kept: class numbers, names and weights are smaller, images and masks larger."""
_ABSENT = -1


@dataclass(frozen=True)
class SmallMembers:
    """Contents of members, one after the other.

    Args:
        content: all of them.
        starts: where each member begins in it, int64 (n, m); -1 for one that is not kept.
    """

    content: bytes
    starts: NDArray[np.int64]

    def select_samples(self, samples: NDArray[np.bool_]) -> SmallMembers:
        """Return those of some samples."""
        return SmallMembers(self.content, self.starts[samples])

    def select_columns(self, columns: Sequence[int]) -> SmallMembers:
        """Return those of some columns."""
        return SmallMembers(self.content, self.starts[:, columns])


def choose_small_columns(offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[int]:
    """Return the columns whose members are all small, and not all empty."""
    largest = np.where(offsets >= 0, sizes, 0).max(axis=0)
    return [int(column) for column in np.flatnonzero((largest > 0) & (largest <= _MAX_BYTES))]


def read_small_members(handle: int, offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> bytes:
    """Return the contents of all small columns of an open shard, column by column."""
    return b"".join(
        os.pread(handle, int(sizes[sample, column]), int(offsets[sample, column]))
        for column in choose_small_columns(offsets, sizes)
        for sample in np.flatnonzero(offsets[:, column] >= 0).tolist()
    )


def locate_small_members(content: bytes, offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> SmallMembers | None:
    """Return where each member is in what `read_small_members` has returned; None if it is not of this shard."""
    starts = np.full(offsets.shape, _ABSENT, np.int64)
    at = 0
    for column in choose_small_columns(offsets, sizes):
        rows = np.flatnonzero(offsets[:, column] >= 0)
        ends = at + np.cumsum(sizes[rows, column])
        starts[rows, column] = ends - sizes[rows, column]
        at = int(ends[-1]) if len(ends) else at
    return SmallMembers(content, starts) if at == len(content) else None
