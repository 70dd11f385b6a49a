"""Latencies in constant memory, within half a per cent."""

import itertools
import math

import numpy as np
import pytest

from mlscale.loadtest.latency_histogram import LatencyHistogram


def test_quantiles_are_within_half_a_per_cent() -> None:
    values = np.sort(np.random.default_rng(0).lognormal(1, 1, 5000))
    latencies = LatencyHistogram()
    for value in values:
        latencies.add_latency(value)
    for share in (0.001, 0.5, 0.95, 0.99, 1.0):
        exact = values[math.ceil(share * len(values)) - 1]
        assert latencies.compute_quantile(share) == pytest.approx(exact, rel=0.00501)
    assert latencies.mean == pytest.approx(values.mean())
    assert latencies.highest == values[-1]


def test_a_histogram_counts_all_once() -> None:
    latencies = LatencyHistogram()
    for value in (0.2, 0.3, 0.3, 5.0, 80.0):
        latencies.add_latency(value)
    edges, counts = latencies.compute_histogram(10)
    assert sum(counts) == 5
    assert len(edges) == len(counts) + 1 <= 11
    assert edges[0] <= 0.2
    assert edges[-1] >= 80
    assert [(low <= 5 <= high) for low, high in itertools.pairwise(edges)].count(True) == 1


def test_none_has_no_quantile() -> None:
    assert math.isnan(LatencyHistogram().compute_quantile(0.5))
    assert LatencyHistogram().compute_histogram() == ([], [])


def test_one_is_all_its_quantiles() -> None:
    latencies = LatencyHistogram()
    latencies.add_latency(0.0)
    latencies.add_latency(0.0)
    assert latencies.compute_quantile(0.99) == 0.0
