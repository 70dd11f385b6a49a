"""Prefetching by the order of samples, where the cache can hold what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.loader import Follow, follow_nothing
from mlscale.data.order.windowed_order import WindowedSampler
from mlscale.data.remote.prefetch import Prefetch, Span, report_small_cache, report_transfers
from mlscale.data.remote.remote_shard import RemoteAccess, RemoteShard
from mlscale.data.shards.shard_paths import Shard
from mlscale.data.shards.system_files import report_once
from mlscale.errors import Exit, MLScaleError
from mlscale.report.text import format_decimal_size

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
