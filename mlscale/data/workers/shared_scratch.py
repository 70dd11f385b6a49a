"""Memory that a process shares with one of its workers, for the arrays of requests and replies."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from multiprocessing import reduction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_HEADER_BYTES = 64
"""At the start: the row that is being made, so that a worker that is killed leaves the name of its sample."""
_ALIGNMENT = 64
_MIN_BYTES = 1 << 20


class ArrayPlace(NamedTuple):
    """An array in the memory.

    Args:
        shape: of the array.
        dtype: its type, as numpy writes it.
        offset: bytes before it.
    """

    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def end(self) -> int:
        """The number of bytes up to its end."""
        return self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize


class SharedScratch:
    """Memory of two processes that take turns: one writes arrays, the other reads them where they are.

    It is a file without a name, so that nothing of it is left once both have ended, even if they were killed.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = _create_memory_file() if descriptor is None else descriptor
        self._memory = self._map_memory(_MIN_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        # Only while a process is started: the descriptor goes with the request for it.
        return _attach_scratch, (reduction.DupFd(self._descriptor),)

    @property
    def row(self) -> int:
        """The row that the worker makes; -1 for none."""
        return int(np.frombuffer(self._memory, np.int64, 1)[0])

    def mark_row(self, row: int) -> None:
        """Set the row that is being made."""
        np.frombuffer(self._memory, np.int64, 1)[0] = row

    def place_arrays(self, kinds: Sequence[tuple[tuple[int, ...], str]]) -> list[ArrayPlace]:
        """Return places for arrays of these shapes and types; what was in the memory before is overwritten."""
        # Aligned, since numpy and torch are slower on arrays that begin anywhere.
        places, offset = [], _HEADER_BYTES
        for shape, dtype in kinds:
            places.append(ArrayPlace(shape, dtype, offset))
            offset = -(-places[-1].end // _ALIGNMENT) * _ALIGNMENT
        return places

    def view_arrays(self, places: Sequence[ArrayPlace]) -> list[NDArray[Any]]:
        """Return the arrays at these places; a view each, valid until the next request or reply."""
        end = max((array.end for array in places), default=0)
        if end > len(self._memory):
            self._memory = self._map_memory(end)
        return [
            np.frombuffer(self._memory, array.dtype, math.prod(array.shape), array.offset).reshape(array.shape)
            for array in places
        ]

    def write_arrays(self, arrays: Sequence[NDArray[Any]]) -> list[ArrayPlace]:
        """Copy arrays into the memory and return their places."""
        places = self.place_arrays([(array.shape, array.dtype.str) for array in arrays])
        for view, array in zip(self.view_arrays(places), arrays, strict=True):
            np.copyto(view, array)
        return places

    def close(self) -> None:
        """Close the file; arrays that are still in use keep their memory."""
        # Only once: the number may have been given to another file since.
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _map_memory(self, size: int) -> mmap.mmap:
        # Both sides grow the file and neither shrinks it: the other one may have mapped all of it.
        size = -(-max(size, _MIN_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE
        if os.fstat(self._descriptor).st_size < size:
            os.ftruncate(self._descriptor, size)
        return mmap.mmap(self._descriptor, size)


def _create_memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mlscale-samples")
    # macOS has no files in memory; this one is unlinked as soon as it is open.
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _attach_scratch(descriptor: Any) -> SharedScratch:
    return SharedScratch(descriptor.detach())
