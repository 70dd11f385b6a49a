"""Read files of shards into the page cache, from end to end, before the samples of their window are needed.

Threads that decode read samples at random places, and each waits for the disk; so the disk waits while they decode.
Here one thread asks for whole files in the order of need. Nothing depends on how far it is: a sample that is not in the
page cache yet is read by who needs it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.loader import Follow, follow_nothing
from mlscale.data.order.sample_order import Span
from mlscale.data.order.windowed_order import WindowedSampler
from mlscale.data.shards.shard_paths import Shard
from mlscale.runs.host.machine import get_free_memory

_PIECE = 1 << 20
_PIECES_AHEAD = 4
"""Pieces that are asked for before the first of them is waited for: the disk always has the next one."""


class ReadAhead:
    """Reads the files of one window after the other, at most one window ahead of the one that is planned.

    Args:
        paths: of the shards.
        numbers: which of them each sample is in, (n,).
        span: the order of the epoch.
        find_window: returns start and stop of the window that a position is in.
        stop: the position at which the epoch ends.
    """

    def __init__(
        self,
        paths: Sequence[str],
        numbers: NDArray[np.int64],
        span: Span,
        find_window: Callable[[int], tuple[int, int]],
        stop: int,
    ) -> None:
        self._paths, self._numbers, self._span, self._find_window, self._stop = paths, numbers, span, find_window, stop
        self._position, self._is_closed, self._changed = 0, False, threading.Condition()

    def start(self, position: int) -> None:
        """Begin with the window of a position."""
        self._position = position
        # A daemon: the end of the process does not wait for it.
        threading.Thread(target=self._read, args=(position,), name="mlscale-read-ahead", daemon=True).start()

    def advance(self, position: int) -> None:
        """Note that the batch at a position was planned."""
        with self._changed:
            self._position = position
            self._changed.notify_all()

    def close(self) -> None:
        """End reading."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _read(self, position: int) -> None:
        before = position
        while position < self._stop:
            start, stop = self._find_window(position)
            with self._changed:
                # Until the window before is planned: further ahead, what is needed sooner might be dropped.
                while self._position < before and not self._is_closed:
                    self._changed.wait()
            for path in self._list_files(position, min(stop, self._stop)):
                self._read_file(path)
                if self._is_closed:
                    return
            before, position = start, stop

    def _list_files(self, start: int, stop: int) -> list[str]:
        """Return the files of a stretch, in the order of their first samples."""
        present, first = np.unique(self._numbers[self._span(start, stop)], return_index=True)
        return [self._paths[number] for number in present[np.argsort(first)].tolist()]

    def _read_file(self, path: str) -> None:
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:  # the error of the batch that needs it, with its message
            return
        try:
            size = os.fstat(handle).st_size
            for start in range(0, size + _PIECES_AHEAD * _PIECE, _PIECE):
                if self._is_closed:
                    return
                if start < size:
                    os.posix_fadvise(handle, start, _PIECE, os.POSIX_FADV_WILLNEED)
                # The last byte of a piece is there once the piece is: so it is waited for, and nothing is copied.
                if (waited := start - (_PIECES_AHEAD - 1) * _PIECE) > 0:
                    os.pread(handle, 1, min(waited, size) - 1)
        except OSError:
            return
        finally:
            os.close(handle)


def build_read_ahead(shards: Sequence[Shard], numbers: NDArray[np.int64], sampling: WindowedSampler) -> Follow:
    """Return what reads the files of windows ahead; nothing, where memory can't hold two windows.

    Args:
        shards: of the split, all of them files of this machine.
        numbers: which of them each sample is in, (n,).
        sampling: the order of training.
    """
    paths = [shard.path for shard in shards]
    if not hasattr(os, "posix_fadvise") or not _fits_memory(paths, sampling):
        return follow_nothing

    @contextmanager
    def follow(epoch: int, span: Span, start: int, stop: int) -> Iterator[Callable[[int], None]]:
        ahead = ReadAhead(paths, numbers, span, lambda position: sampling.find_window(epoch, position), stop)
        ahead.start(start)
        try:
            yield ahead.advance
        finally:
            ahead.close()

    return follow


def _fits_memory(paths: Sequence[str], sampling: WindowedSampler) -> bool:
    # Of one epoch: windows of others differ by less than a shard.
    largest = max(sum(map(_get_size, (paths[shard] for shard in window))) for window in sampling.list_windows(0))
    # Other data, and other ranks, need memory too.
    return 4 * largest <= get_free_memory()


def _get_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
