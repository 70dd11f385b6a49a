"""Intervals against scipy's and published ones, and how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy.stats import norm, quantile_test

from mlscale.stats.intervals import (
    Interval,
    average_intervals,
    compute_quantile_interval,
    compute_share_interval,
    compute_wilson_interval,
    estimate_variance_scale,
)


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


@pytest.mark.parametrize(("n", "q", "confidence"), [(3, 0.5, 0.75), (40, 0.3, 0.8), (400, 0.99, 0.5), (7, 0.5, 0.98)])
def test_quantile_at_another_confidence(n: int, q: float, confidence: float) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    found, expected = (
        compute_quantile_interval(values, q, confidence),
        quantile_test(values, p=q).confidence_interval(confidence),
    )
    assert found.low == (-math.inf if math.isnan(expected.low) else expected.low)
    assert found.high == (math.inf if math.isnan(expected.high) else expected.high)


def test_the_first_and_the_last_value_may_be_the_ends() -> None:
    found = compute_quantile_interval(np.array([4.0, 1.0, 3.0, 5.0, 2.0, 6.0]), 0.5)
    assert (found.low, found.value, found.high) == (1, 3, 6)  # 1/64 on each side are less than 2.5 %
    assert compute_quantile_interval(np.arange(5.0), 0.5).low == -math.inf  # 1/32 are more


@pytest.mark.parametrize(
    ("value", "observed", "n", "scale"),
    [
        (0.5, 2.01, 100, 2.0), (0.5, 1.0, 100, 1.0), (0.9, 0.0, 10, 1 / 3), (0.1, 0.5, 10, 2 / 3),
        (0.0, 7.0, 10, 1.0), (1.0, 7.0, 10, 1.0), (0.5, math.nan, 10, 1.0), (0.5, math.inf, 10, 1.0),
        (0.5, 0.0, 10**7, 1e-6), (0.25, 3.0, 1, 5 / 3),
    ],
)  # fmt: skip
def test_variance_is_shrunk_towards_the_models(value: float, observed: float, n: int, scale: float) -> None:
    assert estimate_variance_scale(value, observed, n) == pytest.approx(scale)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_a_share_of_twice_the_variance_has_the_interval_of_half_the_trials(confidence: float) -> None:
    found = compute_share_interval(0.5, 2.01 * 0.25 / 100, 100, confidence)
    known = compute_wilson_interval(25, 50, confidence)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, known.low, known.high))
    found = compute_share_interval(0.2, 0.2 * 0.8 / 10 * (1 + 1 / 4), 10, confidence)  # shrunk to 1.2
    trials, z2 = 10 / 1.2, norm.ppf((1 + confidence) / 2) ** 2
    middle, half = 0.2 + z2 / (2 * trials), math.sqrt(z2 * 0.16 / trials + z2 * z2 / (4 * trials**2))
    ends = [(middle - half) / (1 + z2 / trials), (middle + half) / (1 + z2 / trials)]
    assert [found.low, found.high] == pytest.approx(ends)


def test_the_ends_of_a_share_stay_on_their_sides() -> None:
    assert compute_share_interval(0, math.nan, 10).low == 0
    assert compute_share_interval(1, math.nan, 10).high == 1
    for n in (1, 3, 7, 1000, 10**9):
        for value in (0.0, 0.1, 0.3, 1.0):
            found = compute_share_interval(value, 1e-12, n)
            assert 0 <= found.low <= value <= found.high <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1)])
def test_one_trial_is_enough(successes: int, n: int) -> None:
    assert compute_wilson_interval(successes, n).value == successes
    assert compute_share_interval(successes, math.nan, n).value == successes
    assert compute_wilson_interval(successes, n, 0.5).high - compute_wilson_interval(successes, n, 0.5).low < 0.6


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, 0), (-1, -2)])
def test_what_is_not_a_share_is_reported(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"^{successes} of {n} is not a share"):
        compute_wilson_interval(successes, n)


def test_a_mean_of_shares_has_an_interval_of_both() -> None:
    one = compute_wilson_interval(9, 10)
    found = average_intervals([Interval(0.9, 0.6, 0.98), Interval(0.5, 0.1, 0.8)])
    assert (found.value, found.low, found.high) == pytest.approx((0.7, 0.7 - 0.25, 0.7 + math.hypot(0.08, 0.3) / 2))
    same = average_intervals([one])
    assert (same.value, same.low, same.high) == pytest.approx((one.value, one.low, one.high))
