"""Latencies in constant memory: a histogram with buckets of equal ratio, as in HdrHistogram (Tene, 2012).

Locust itself rounds to whole milliseconds, but a small model answers in less than one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

_LOWEST_MS, _RATIO = 0.001, 1.01
"""The lowest bucket, and the ratio of two edges: a quantile is within 0.5 % of the true one."""


class LatencyHistogram:
    """A histogram of latencies, in ms.

    Attributes:
        count: the number of latencies.
        total: their sum, in ms.
        highest: the longest, in ms, exact.
    """

    def __init__(self) -> None:
        self.count, self.total, self.highest = 0, 0.0, 0.0
        self._buckets: Counter[int] = Counter()

    def add_latency(self, ms: float) -> None:
        """Count one latency of `ms` milliseconds."""
        self.count += 1
        self.total += ms
        # Apart from the buckets: an objective for the longest latency must not be off by their width.
        self.highest = max(self.highest, ms)
        self._buckets[_find_bucket(ms)] += 1

    @property
    def mean(self) -> float:
        """The mean in ms; NaN if empty."""
        return self.total / self.count if self.count else math.nan

    def compute_quantile(self, share: float) -> float:
        """Return the smallest latency, in ms, that `share` of all do not exceed; NaN if empty.

        Args:
            share: from 0 to 1; 0.99 for p99.
        """
        wanted, seen = math.ceil(share * self.count), 0
        for bucket, count in sorted(self._buckets.items()):
            seen += count
            if seen >= wanted:
                # The middle of the last bucket may be above the longest latency, which is exact.
                return min(_compute_middle(bucket), self.highest)
        return math.nan

    def compute_histogram(self, bins: int = 40) -> tuple[list[float], list[int]]:
        """Return at most `bins` + 1 edges in ms, of equal ratio, and the counts between them; empty lists if empty."""
        if not self.count:
            return [], []
        # From the lowest that was seen: edges from 1 µs on would leave most bins of a picture empty.
        lowest, highest = min(self._buckets), max(self._buckets) + 1
        step = max(1, math.ceil((highest - lowest) / bins))
        counts = [0] * math.ceil((highest - lowest) / step)
        for bucket, count in self._buckets.items():
            counts[(bucket - lowest) // step] += count
        return [_compute_edge(lowest + step * i) for i in range(len(counts) + 1)], counts

    def as_dict(self) -> dict[str, Any]:
        """Return a document for JSON."""
        # JSON has text keys only.
        buckets = {str(bucket): count for bucket, count in sorted(self._buckets.items())}
        return {"count": self.count, "total_ms": self.total, "highest_ms": self.highest, "buckets": buckets}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> LatencyHistogram:
        """Return the object that `as_dict` has written."""
        made = cls()
        made.count, made.total, made.highest = document["count"], document["total_ms"], document["highest_ms"]
        made._buckets.update({int(bucket): count for bucket, count in document["buckets"].items()})
        return made


def _find_bucket(ms: float) -> int:
    return max(0, math.floor(math.log(max(ms, _LOWEST_MS) / _LOWEST_MS) / math.log(_RATIO)))


def _compute_edge(bucket: int) -> float:
    return float(_LOWEST_MS * _RATIO**bucket)


def _compute_middle(bucket: int) -> float:
    # The geometric middle: the relative error is the same towards both edges.
    return _compute_edge(bucket) * math.sqrt(_RATIO)
