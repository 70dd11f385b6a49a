"""Download remote shards in the order in which training will need them, blocks of positions ahead."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.loader import Follow, follow_nothing
from mlscale.data.order.windowed_order import WindowedSampler
from mlscale.data.remote.remote_shard import RemoteAccess, RemoteShard
from mlscale.data.shards.shard_paths import Shard
from mlscale.data.shards.system_files import report_once
from mlscale.errors import Exit, MLScaleError
from mlscale.report.text import format_decimal_size

FindBlock = Callable[[int], tuple[int, int]]
"""Returns start and stop of the block of an epoch's order that a position is in: a window, or any stretch."""
Span = Callable[[int, int], NDArray[np.int64]]

_PARALLEL = 8
"""Downloads at a time: one connection to an object store gives a tenth of what a machine can take."""
_LAG = 8
"""A block's shards are free once an eighth of the next one was planned: batches in work still read them."""
_WAIT_SECONDS = 0.2


@dataclass
class _Block:
    """A stretch of an epoch's order, and the handles that keep its shards in the cache."""

    start: int
    stop: int
    handles: list[int] = field(default_factory=list)
    is_released: bool = False

    def release(self) -> None:
        """Let its shards go."""
        self.is_released = True
        while self.handles:
            os.close(self.handles.pop())


class Prefetch:
    """Downloads of an epoch, which go on in threads until it is closed.

    Nothing depends on how far they are: what is not there yet is downloaded by who needs it.

    Args:
        access: what the shards share.
        shards: of the split.
        numbers: which of them each sample is in, (n,); -1 for one that is in none.
        span: the order of the epoch.
        find_block: see `FindBlock`.
        stop: the position at which the epoch ends.
        ahead: blocks that are downloaded beyond the one that is read, at most. With 1 nothing is downloaded from when
            the next block is complete until the present one is let go.
    """

    def __init__(
        self,
        access: RemoteAccess,
        shards: Sequence[Shard],
        numbers: NDArray[np.int64],
        span: Span,
        find_block: FindBlock,
        stop: int,
        ahead: int = 1,
    ) -> None:
        self._access, self._shards, self._numbers, self._span = access, shards, numbers, span
        self._find_block, self._stop, self._ahead = find_block, stop, ahead
        self._position = 0
        self._planned: set[str] = set()
        self._is_closed = False
        self._changed = threading.Condition()
        self._blocks: list[_Block] = []
        self._waiting: deque[tuple[RemoteShard, _Block]] = deque()

    def start(self, position: int) -> None:
        """Begin with the shards that are needed at a position."""
        self._position = position
        # Daemons: the end of the process does not wait for a download, which the next run resumes.
        for number in range(_PARALLEL):
            threading.Thread(target=self._download, name=f"mlscale-download-{number}", daemon=True).start()
        threading.Thread(target=self._plan, args=(position,), name="mlscale-prefetch", daemon=True).start()

    def advance(self, position: int) -> None:
        """Note that the batch at a position was planned; shards of blocks before it are let go."""
        with self._changed:
            self._position = position
            for block in self._blocks:
                if not block.is_released and position >= block.stop + (block.stop - block.start) // _LAG:
                    block.release()
            self._changed.notify_all()

    def close(self) -> None:
        """End the downloads, and let all shards go."""
        with self._changed:
            self._is_closed = True
            for block in self._blocks:
                block.release()
            self._access.planned -= self._planned
            self._changed.notify_all()

    def _plan(self, position: int) -> None:
        """Hand out the shards of one block after the other, as soon as the one before is read."""
        for start, stop in self._iterate_blocks(position):
            block = _Block(start, stop)
            with self._changed:
                while not self._is_closed and len(self._list_open()) > self._ahead:
                    self._changed.wait()
                if self._is_closed:
                    return
                self._blocks = [*self._list_open(), block]
            shards = self._list_needed(max(start, position), stop)
            with self._changed:
                self._planned.update(shard.copy_name for shard in shards)
                self._access.planned |= self._planned
                self._waiting.extend((shard, block) for shard in shards)
                self._changed.notify_all()

    def _download(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if self._is_closed:
                    return
                shard, block = self._waiting.popleft()
            # What can't be downloaded is the error of the batch that needs it, with its message.
            with suppress(MLScaleError):
                self._fetch(shard, block)

    def _iterate_blocks(self, position: int) -> Iterator[tuple[int, int]]:
        while position < self._stop:
            start, stop = self._find_block(position)
            yield start, min(stop, self._stop)
            position = stop

    def _list_open(self) -> list[_Block]:
        return [block for block in self._blocks if not block.is_released]

    def _list_needed(self, start: int, stop: int) -> list[RemoteShard]:
        """Return the remote shards of a stretch, in the order of their first samples."""
        numbers = self._numbers[self._span(start, stop)]
        present, first = np.unique(numbers, return_index=True)
        ordered = [self._shards[number] for number in present[np.argsort(first)].tolist() if number >= 0]
        return [shard for shard in ordered if isinstance(shard, RemoteShard)]

    def _fetch(self, shard: RemoteShard, block: _Block) -> None:
        while not (self._is_closed or block.is_released):
            handle = shard.fetch(lambda: self._is_closed)
            with self._changed:
                if handle is not None and (self._is_closed or block.is_released):
                    os.close(handle)
                    return
                if handle is not None:
                    block.handles.append(handle)
                    return
                # Everything in the cache is being read. What is needed now is read by ranges.
                if block.start <= self._position:
                    self._access.planned.discard(shard.copy_name)
                    return
                self._changed.wait(_WAIT_SECONDS)


def report_transfers(access: RemoteAccess) -> None:
    """Print what has failed since the last report, if anything did."""
    if (line := access.counts.take_line()) is not None:
        _report(line)


def report_small_cache(access: RemoteAccess, size: int, where: str) -> None:
    """Print that the cache can't hold what the order needs, and what is done in place of it."""
    report_once(
        f"remote    {where} has {format_decimal_size(size)} and the cache {format_decimal_size(access.cache.limit)} "
        "(data.cache_gb): each sample is a request of its own; data.order=windowed reads whole shards"
    )


def _report(line: str) -> None:
    # Of every rank: each has connections of its own.
    rank = os.environ.get("RANK")
    with suppress(ValueError):  # stderr may be closed at the end of a process
        print(line if rank is None else f"{line} (rank {rank})", file=sys.stderr, flush=True)


_BLOCK = 1 << 16
"""Positions that are looked ahead at a time, where the order has no windows: about one block of its arithmetic."""


def build_follow(
    shards: Sequence[Shard],
    numbers: NDArray[np.int64],
    sampling: object,
    where: str,
) -> Follow:
    """Return what downloads the shards of a split ahead; nothing, where they are on this machine.

    Args:
        shards: of the split.
        numbers: which of them each sample is in, (n,); -1 for none.
        sampling: the order of training; None for evaluation, in the data's own order.
        where: the key path of the split, for messages.
    """
    remote = [shard for shard in shards if isinstance(shard, RemoteShard)]
    if not remote:
        return follow_nothing
    access = remote[0].access
    total = sum(shard.stat.size for shard in remote)
    if sampling is not None and not isinstance(sampling, WindowedSampler) and total > access.cache.limit:
        # Every batch needs samples of all shards: each would be downloaded again and again.
        access.reads_ranges = True
        report_small_cache(access, total, where)
        return follow_nothing

    ahead = _check_windows(sampling, shards, access, where) if isinstance(sampling, WindowedSampler) else 1

    @contextmanager
    def follow(epoch: int, span: Span, start: int, stop: int) -> Iterator[Callable[[int], None]]:
        def find_block(position: int) -> tuple[int, int]:
            if isinstance(sampling, WindowedSampler):
                return sampling.find_window(epoch, position)
            begin = position // _BLOCK * _BLOCK
            return begin, begin + _BLOCK

        prefetch = Prefetch(access, shards, numbers, span, find_block, stop, ahead)
        prefetch.start(start)
        try:
            yield prefetch.advance
        finally:
            prefetch.close()
            report_transfers(access)

    return follow


def _check_windows(sampling: WindowedSampler, shards: Sequence[Shard], access: RemoteAccess, where: str) -> int:
    """Return how many windows are downloaded ahead; report that not even one is.

    Raises:
        MLScaleError: a window is larger than the cache.
    """
    sizes = np.array([shard.stat.size if isinstance(shard, RemoteShard) else 0 for shard in shards], np.int64)
    # Of one epoch: those of others differ by less than a shard.
    largest = max(int(sizes[window].sum()) for window in sampling.list_windows(0))
    limit = access.cache.limit
    if largest > limit:
        raise MLScaleError(
            f"a window of {where} has {format_decimal_size(largest)}, and the cache may have "
            f"{format_decimal_size(limit)}",
            where="data.cache_gb",
            why="all shards of a window are needed at a time, and the next one is downloaded meanwhile",
            fix=f"data.cache_gb={largest * 2.5 / 1e9:.2g}, or data.cache_dir=<a larger disk>; "
            "a smaller data.shuffle_window is another order, for new runs",
            exit=Exit.ENVIRONMENT,
        )
    if 2 * largest > limit:
        report_once(
            f"remote    two windows of {where} have {format_decimal_size(2 * largest)} and the cache "
            f"{format_decimal_size(limit)} (data.cache_gb): not all of the next window is downloaded ahead"
        )
    # The fourth stays free: validation has shards, too.
    return 2 if 4 * largest <= limit else 1
