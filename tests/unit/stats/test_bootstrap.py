"""Intervals of figures that are functions of sums: as scipy has them, as often right as they say, and cheap."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from mlscale.stats.bootstrap import Floats, bootstrap_intervals


def mean(sums: Floats) -> Floats:
    return sums[:, :1] / sums[:, 1:]


def rows(values: Floats) -> Floats:
    return np.stack([values, np.ones(len(values))], 1)


def test_as_scipy_has_it() -> None:
    values = np.random.default_rng(0).exponential(size=60)
    ours = bootstrap_intervals(rows(values), mean, draws=20_000)[0]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval, abs=0.02)


def test_the_truth_lies_within_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [bootstrap_intervals(rows(rng.exponential(size=80)), mean, draws=500)[0] for _ in range(300)]
    share = np.mean([each.low <= 1 <= each.high for each in found])
    assert 0.91 < share < 0.98


def test_samples_that_are_alike_are_given_once() -> None:
    values = np.repeat([0.0, 1.0], [30, 70])
    one, other = (
        bootstrap_intervals(rows(values), mean),
        bootstrap_intervals(rows(np.array([0.0, 1.0])), mean, counts=np.array([30, 70])),
    )
    assert one.value == other.value
    assert one[0].low == pytest.approx(other[0].low, abs=0.011)
    assert one[0].high == pytest.approx(other[0].high, abs=0.011)


def test_very_many_samples_are_put_together_first() -> None:
    values = np.random.default_rng(0).normal(size=200_000)
    found = bootstrap_intervals(rows(values), mean)[0]
    half = (found.high - found.low) / 2
    assert half == pytest.approx(1.96 / np.sqrt(200_000), rel=0.1)


@pytest.mark.parametrize("n", [10, 15, 30])
def test_few_samples_have_a_wider_interval(n: int) -> None:
    rng = np.random.default_rng(n)
    found = [bootstrap_intervals(rows(rng.normal(size=n)), mean, draws=400, seed=seed)[0] for seed in range(300)]
    assert np.mean([each.low <= 0 <= each.high for each in found]) > 0.91


@pytest.mark.parametrize("n", [1, 2, 9])
def test_too_few_samples_have_no_interval(n: int) -> None:
    found = bootstrap_intervals(rows(np.arange(float(n))), mean)[0]
    assert found.value == (n - 1) / 2
    assert np.isnan([found.low, found.high]).all()
    counted = bootstrap_intervals(rows(np.array([0.0, 1.0])), mean, counts=np.array([5, 5]))[0]
    assert counted.low < 0.5 < counted.high  # ten samples in two rows


def test_counts_hold_also_where_their_sum_is_the_number_of_rows() -> None:
    values = np.arange(40, dtype=np.float64)
    counts = np.repeat([2, 0], 20)
    counted = bootstrap_intervals(rows(values), mean, counts=counts)[0]
    expanded = bootstrap_intervals(rows(np.repeat(values, counts)), mean)[0]
    assert counted.low == pytest.approx(expanded.low, abs=0.3)
    assert counted.high == pytest.approx(expanded.high, abs=0.3)


@pytest.mark.parametrize(
    ("values", "settings", "why"),
    [
        (np.zeros((0, 2)), {}, "at least one sample"),
        (np.zeros(3), {}, "at least one sample"),
        (np.ones((3, 2)), {"counts": np.array([0, 0, 0])}, "at least one sample"),
        (np.ones((3, 2)), {"counts": np.array([20, 20, -1])}, "at least one sample"),
        (np.ones((3, 2)), {"counts": np.array([20, 20])}, "at least one sample"),
        (np.array([[1.0, np.nan]] * 20), {}, "NaN"),
        (np.ones((20, 2)), {"confidence": 1.0}, "confidence"),
        (np.ones((20, 2)), {"confidence": 95}, "confidence"),
        (np.ones((20, 2)), {"draws": 0}, "draws"),
    ],
)
def test_what_can_not_be_drawn_is_refused(values: Floats, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        bootstrap_intervals(values, mean, **settings)


def test_what_is_not_defined_is_nan_and_harms_nobody() -> None:
    def statistic(sums: Floats) -> Floats:
        return np.stack([sums[:, 0] / sums[:, 1], np.full(len(sums), np.nan)], 1)

    found = bootstrap_intervals(rows(np.arange(10.0)), statistic)
    assert found[0].low < 4.5 < found[0].high
    assert np.isnan(found[1].low)
    same = bootstrap_intervals(rows(np.ones(10)), mean)[0]
    assert same.value == 1
    assert np.isnan([same.low, same.high]).all()  # what does not vary says nothing of how much it may


def test_the_same_seed_gives_the_same_interval() -> None:
    values = rows(np.random.default_rng(0).normal(size=50))
    assert bootstrap_intervals(values, mean, seed=3)[0] == bootstrap_intervals(values, mean, seed=3)[0]
    assert bootstrap_intervals(values, mean, seed=3)[0] != bootstrap_intervals(values, mean, seed=4)[0]
