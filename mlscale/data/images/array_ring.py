"""Output arrays that are reused once no caller holds them any more."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIN_BYTES = 1 << 20
"""Bytes from which an array is kept: smaller ones the allocator reuses itself, larger ones cost page faults."""


class ArrayRing:
    """Arrays for batches.

    A batch is the caller's for as long as they keep it, or any tensor, view or graph that shares its memory: all of
    these hold a reference to the array, and only an array to which the ring's own reference is the last is given out
    again. A caller who keeps every batch gets a new array each time.

    Args:
        keep: arrays that are kept at most.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._arrays: list[NDArray[Any]] = []
        self._lock = threading.Lock()

    def take_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array that no caller holds, with arbitrary contents.

        Args:
            shape: of the array; the first dimension may vary, and the memory of the largest serves for all.
            dtype: of the array.
        """
        if math.prod(shape) * dtype.itemsize < _MIN_BYTES:
            return np.empty(shape, dtype)
        # Between counting and handing out, another thread must not find the same array.
        with self._lock:
            for index in range(len(self._arrays)):
                if _count_references(self._arrays, index) == _UNHELD:
                    array = self._arrays[index]
                    if array.dtype == dtype and array.shape[1:] == shape[1:] and len(array) >= shape[0]:
                        return array[: shape[0]]
            array = np.empty(shape, dtype)
            if len(self._arrays) < self._keep:
                self._arrays.append(array)
            # A view: callers hold the array through it, as they do when only a part is asked for.
            return array[:]


def _count_references(arrays: list[NDArray[Any]], index: int) -> int:
    # By index: a variable for the array would be one more reference.
    return sys.getrefcount(arrays[index])


_UNHELD = _count_references([np.empty(0)], 0)
"""The count where only the list holds the array; it differs between versions of Python."""
