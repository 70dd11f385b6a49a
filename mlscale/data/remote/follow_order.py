"""Prefetching by the order of samples, where the cache can hold what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.loader import Follow, follow_nothing
from mlscale.data.order.windowed_order import WindowedSampler
from mlscale.data.remote.prefetch import Prefetch, Span, report_small_cache
from mlscale.data.remote.remote_shard import RemoteShard
from mlscale.data.shards.shard_paths import Shard

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
    is_windowed = isinstance(sampling, WindowedSampler)
    if sampling is not None and not is_windowed and total > access.cache.limit:
        # Every batch needs samples of all shards: each would be downloaded again and again.
        access.reads_ranges = True
        report_small_cache(access, total, where)
        return follow_nothing

    @contextmanager
    def follow(epoch: int, span: Span, start: int, stop: int) -> Iterator[Callable[[int], None]]:
        def find_block(position: int) -> tuple[int, int]:
            if isinstance(sampling, WindowedSampler):
                return sampling.find_window(epoch, position)
            begin = position // _BLOCK * _BLOCK
            return begin, begin + _BLOCK

        prefetch = Prefetch(access, shards, numbers, span, find_block, stop)
        prefetch.start(start)
        try:
            yield prefetch.advance
        finally:
            prefetch.close()

    return follow
