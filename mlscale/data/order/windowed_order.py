"""Shuffle within windows of whole shards: for disks and object stores, where a shard is read best from end to end.

Each epoch the shards come in an order of its own, cut into windows; each window's samples come in a random order. As
every order it is a function of (seed, epoch, data, policy, position), so the promises are those of the global shuffle.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.order.keyed_permutation import Permutation
from mlscale.data.order.sample_order import Span


class _Pass(NamedTuple):
    """One pass over the data.

    Args:
        shards: in the order of the pass, int64 (shards,).
        bounds: the shard of the pass at which each window begins, and their number, int64 (windows + 1,).
        starts: the position at which each of these shards begins, and the length of the pass, int64 (shards + 1,).
    """

    shards: NDArray[np.int64]
    bounds: NDArray[np.int64]
    starts: NDArray[np.int64]


class WindowedSampler:
    """Each sample once in a pass over the data.

    Args:
        sizes: samples of each shard; they lie one after the other, int64 (shards,).
        weights: what each shard counts towards a window: 1, or its bytes; int64 (shards,).
        window: the weight of a window, about: windows of an epoch are about equal.
        length: samples of an epoch; a pass may end within it.
        seed: the run's.
        version: digest of the data.
    """

    def __init__(
        self,
        sizes: NDArray[np.int64],
        weights: NDArray[np.int64],
        window: int,
        *,
        length: int,
        seed: int,
        version: str,
    ) -> None:
        self.length = length
        self._sizes, self._weights, self._window = sizes, weights, window
        self._firsts = np.cumsum(sizes) - sizes
        self._samples = int(sizes.sum())
        self._seed, self._version = seed, version
        content = np.stack((sizes, weights)).astype("<i8").tobytes() + f"{window} {length}".encode()
        self.policy = f"windowed {hashlib.sha256(content).hexdigest()[:16]}"
        # Two passes: an epoch may begin in one and end in the next. A window is kept for its blocks of positions.
        self._build_pass = lru_cache(maxsize=2)(self._build_pass_of)
        self._build_permutation = lru_cache(maxsize=4)(self._build_permutation_of)

    def get_epoch_order(self, number: int) -> Span:
        first = self._get_first(number)

        def compute_span(start: int, stop: int) -> NDArray[np.int64]:
            parts, at = [], first + start
            while at < first + stop:
                part = self._compute_part(at, first + stop)
                parts.append(part)
                at += len(part)
            return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int64), *parts])

        return compute_span

    def find_window(self, epoch: int, position: int) -> tuple[int, int]:
        """Return the positions of an epoch at which the window of a position starts and stops.

        One that began in the epoch before starts below 0, and one that ends in the next stops behind the end.
        """
        first = self._get_first(epoch)
        number, at = divmod(first + position, self._samples)
        one, window = self._build_pass(number), self._locate_window(number, at)
        shift = number * self._samples - first
        return int(one.starts[one.bounds[window]]) + shift, int(one.starts[one.bounds[window + 1]]) + shift

    def list_windows(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the shards of each window of the pass in which an epoch begins."""
        one = self._build_pass(self._get_first(epoch) // self._samples)
        return [one.shards[low:high] for low, high in zip(one.bounds, one.bounds[1:], strict=False)]

    def _get_first(self, epoch: int) -> int:
        """Return the samples of all passes before an epoch."""
        return epoch * self.length

    def _compute_part(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the samples from a position of all passes on, up to the end of its window or `stop`."""
        number, at = divmod(start, self._samples)
        one, window = self._build_pass(number), self._locate_window(number, at)
        low, high = one.bounds[window], one.bounds[window + 1]
        begin, end = int(one.starts[low]), int(one.starts[high])
        permutation = self._build_permutation(number, window, end - begin)
        drawn = begin + permutation.compute_span(at - begin, min(end, at + stop - start) - begin)
        index = np.searchsorted(one.starts, drawn, side="right") - 1
        samples: NDArray[np.int64] = self._firsts[one.shards[index]] + drawn - one.starts[index]
        return samples

    def _locate_window(self, number: int, at: int) -> int:
        one = self._build_pass(number)
        return int(np.searchsorted(one.starts[one.bounds], at, side="right")) - 1

    def _build_pass_of(self, number: int) -> _Pass:
        count = len(self._sizes)
        order = Permutation(count, seed=self._seed, epoch=number, version=f"windowed {self._version}")
        shards = order(np.arange(count, dtype=np.int64))
        weights = self._weights[shards]
        total = int(weights.sum())
        windows = max(1, -(-total // self._window))
        # Equal parts, and not full ones with a rest: a rest of one shard would be mixed with nothing.
        group = (np.cumsum(weights) - weights) * windows // max(1, total)
        bounds = np.flatnonzero(np.diff(group, prepend=-1))
        starts = np.concatenate([[0], np.cumsum(self._sizes[shards])])
        return _Pass(shards, np.append(bounds, count), starts)

    def _build_permutation_of(self, number: int, window: int, samples: int) -> Permutation:
        return Permutation(samples, seed=self._seed, epoch=number, version=f"windowed {window} {self._version}")
