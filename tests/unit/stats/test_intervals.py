"""Intervals against scipy's and published ones, and how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy.stats import quantile_test

from mlscale.stats.intervals import compute_quantile_interval, compute_wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(successes: int, n: int, low: float, high: float) -> None:
    found = compute_wilson_interval(successes, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.value == successes / n


def test_wilson_holds_the_truth_as_often_as_stated() -> None:
    generator = np.random.default_rng(0)
    for truth, n in ((0.5, 50), (0.98, 300), (0.9, 40)):
        ends = [compute_wilson_interval(int(count), n) for count in generator.binomial(n, truth, 2_000)]
        assert np.mean([end.low <= truth <= end.high for end in ends]) == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(("n", "q"), [(59, 0.9), (300, 0.5), (1000, 0.99), (368, 0.99)])
def test_quantile_says_what_scipy_says(n: int, q: float) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    found, expected = compute_quantile_interval(values, q), quantile_test(values, p=q).confidence_interval(0.95)
    assert (found.low, found.high) == (expected.low, expected.high)
    assert found.value == np.quantile(values, q, method="inverted_cdf")
    assert found.low <= found.value <= found.high


def test_few_values_do_not_bound_a_far_quantile() -> None:
    assert compute_quantile_interval(np.arange(367.0), 0.99).high == math.inf
    assert compute_quantile_interval(np.arange(368.0), 0.99).high == 367
    assert compute_quantile_interval(np.array([3.0]), 0.5) == compute_quantile_interval(np.array([3]), 0.5)
    assert compute_quantile_interval(np.array([3.0]), 0.5).low == -math.inf


def test_quantile_holds_the_truth_as_often_as_stated() -> None:
    generator = np.random.default_rng(0)
    found = [compute_quantile_interval(generator.exponential(size=400), 0.9) for _ in range(1_000)]
    covered = np.mean([each.low <= -math.log(0.1) <= each.high for each in found])
    assert 0.94 <= covered <= 0.98  # ranks are whole: rather too sure than not
