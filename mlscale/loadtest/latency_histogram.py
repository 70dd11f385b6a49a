"""Latencies in constant memory: a histogram with buckets of equal ratio, as in HdrHistogram (Tene, 2012).

Locust itself rounds to whole milliseconds, but a small model answers in less than one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

_LOWEST_MS, _RATIO = 0.001, 1.01
"""The lowest bucket, and the ratio of two edges: a quantile is within 0.5 % of the true one."""
_BUCKETS = 2600
"""Up to 48 hours: far above any timeout."""


@dataclass
class LatencyHistogram:
    """A histogram of latencies, in ms.

    Attributes:
        count: the number of latencies.
        total: their sum, in ms.
        highest: the longest, in ms, exact.
        buckets: the number of latencies in each bucket.
    """

    count: int = 0
    total: float = 0.0
    highest: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    def add_latency(self, ms: float) -> None:
        """Count one latency of `ms` milliseconds."""
        self.count += 1
        self.total += ms
        # Apart from the buckets: an objective for the longest latency must not be off by their width.
        self.highest = max(self.highest, ms)
        bucket = math.floor(math.log(max(ms, _LOWEST_MS) / _LOWEST_MS) / math.log(_RATIO))
        self.buckets[min(bucket, _BUCKETS - 1)] += 1

    @property
    def mean(self) -> float:
        """The mean in ms; NaN if empty."""
        return self.total / self.count if self.count else math.nan

    def compute_quantile(self, share: float) -> float:
        """Return the smallest latency, in ms, that `share` of all do not exceed; NaN if empty.

        Args:
            share: from 0 to 1; 0.99 for p99.
        """
        if not self.count:
            return math.nan
        bucket = int(np.searchsorted(np.cumsum(self.buckets), max(1, math.ceil(share * self.count))))
        # Its geometric middle: the relative error is the same towards both edges. That of the last bucket may be above
        # the longest latency, which is exact.
        return min(float(_LOWEST_MS * _RATIO ** (bucket + 0.5)), self.highest)

    def compute_histogram(self, bins: int = 40) -> tuple[list[float], list[int]]:
        """Return at most `bins` + 1 edges in ms, of equal ratio, and the counts between them; empty lists if empty."""
        if not self.count:
            return [], []
        # From the lowest that was seen: edges from 1 µs on would leave most bins of a picture empty.
        lowest, highest = np.flatnonzero(self.buckets)[[0, -1]]
        step = max(1, math.ceil((highest + 1 - lowest) / bins))
        starts = np.arange(lowest, highest + 1, step)
        edges = _LOWEST_MS * _RATIO ** np.append(starts, starts[-1] + step)
        return edges.tolist(), np.add.reduceat(self.buckets, starts).tolist()
