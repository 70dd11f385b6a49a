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


class Recorder:
    """A statistic that keeps what it gave: of all samples, of the draws, and without each row."""

    def __init__(self) -> None:
        self.calls: list[Floats] = []
        self.sums: list[Floats] = []

    def __call__(self, sums: Floats) -> Floats:
        self.sums.append(sums)
        self.calls.append(mean(sums) ** 2)
        return self.calls[-1]


def compute_bca_interval(
    value: float, drawn: Floats, left_out: Floats, times: Floats, confidence: float
) -> tuple[float, float]:
    """Efron's BCa interval, with Student's quantile for the tails."""
    n = times.sum()
    tail = stats.norm.cdf(stats.t.ppf((1 - confidence) / 2, n - 1) * np.sqrt(n / (n - 1)))
    bias = stats.norm.ppf(np.mean(drawn < value) + np.mean(drawn == value) / 2)
    away = np.average(left_out, weights=times) - left_out
    skew = (times * away**3).sum() / (6 * (times * away**2).sum() ** 1.5)
    ends = bias + stats.norm.ppf([tail, 1 - tail])
    low, high = np.quantile(drawn, stats.norm.cdf(bias + ends / (1 - skew * ends)))
    return float(low), float(high)


@pytest.mark.parametrize("counts", [None, [3, 1, 2, 0, 1, 4, 1, 1, 2, 1, 1, 1]])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_interval_follows_from_the_draws_and_the_jackknife(counts: list[int] | None, confidence: float) -> None:
    values = np.random.default_rng(1).exponential(size=12).round(1)
    statistic = Recorder()
    weights = None if counts is None else np.array(counts)
    found = bootstrap_intervals(rows(values), statistic, counts=weights, confidence=confidence, draws=400)[0]
    whole, drawn, left_out = (call[:, 0] for call in statistic.calls)
    times = np.ones(12) if counts is None else np.array(counts, np.float64)
    assert found.value == whole[0] == pytest.approx(np.average(values, weights=times) ** 2)
    assert len(drawn) == 400
    # Each draw has as many samples as there are, and one of them is left out in turn.
    assert (statistic.sums[1][:, 1] == times.sum()).all()
    assert statistic.sums[2] == pytest.approx(rows(values).T @ times - rows(values))
    expected = compute_bca_interval(found.value, drawn, left_out, times, confidence)
    assert (found.low, found.high) == pytest.approx(expected)


def test_where_all_draws_are_on_one_side_the_interval_is_of_percentiles() -> None:
    drawn = np.linspace(1, 2, 101)

    def statistic(sums: Floats) -> Floats:
        # Of all samples it is 0 (and 3), of draws between 1 and 2.
        values = np.zeros(1) if len(sums) == 1 else np.resize(drawn, len(sums))
        return np.stack([values, 3 - (values == 0) * 0 - values], 1)

    found = bootstrap_intervals(rows(np.arange(40.0)), statistic, draws=101, confidence=0.9)
    tail = stats.norm.cdf(stats.t.ppf(0.05, 39) * np.sqrt(40 / 39))
    assert (found[0].value, found[1].value) == (0, 3)
    assert (found[0].low, found[0].high) == pytest.approx((1 + tail, 2 - tail))
    assert (found[1].low, found[1].high) == pytest.approx((1 + tail, 2 - tail))


def test_a_jackknife_without_a_spread_has_no_skew() -> None:
    drawn = np.random.default_rng(0).normal(size=200)

    def statistic(sums: Floats) -> Floats:
        return np.zeros((len(sums), 1)) if len(sums) != 200 else drawn[:, None]

    found = bootstrap_intervals(rows(np.arange(30.0)), statistic, draws=200)[0]
    bias = stats.norm.ppf(np.mean(drawn < 0))
    tail = stats.norm.cdf(stats.t.ppf(0.025, 29) * np.sqrt(30 / 29))
    shares = stats.norm.cdf(2 * bias + stats.norm.ppf([tail, 1 - tail]))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, shares)))


def test_draws_in_which_a_metric_is_not_defined_do_not_count() -> None:
    values = np.random.default_rng(0).normal(size=30)

    def statistic(sums: Floats) -> Floats:
        means = mean(sums)
        return np.where((means > 0.3) & (len(sums) > 30), np.nan, means)

    found = bootstrap_intervals(rows(values), statistic, draws=500)[0]
    assert found.low < found.value < found.high <= 0.3


def test_more_rows_than_five_thousand_are_grouped() -> None:
    statistic = Recorder()
    values = np.arange(12_000.0)
    bootstrap_intervals(rows(values), statistic, draws=450)
    whole, *drawn, left_out = statistic.sums
    assert whole.tolist() == [[values.sum(), 12_000]]
    # A draw has as many groups as there are, of two or three samples each; a matrix at most two million numbers.
    assert [len(sums) for sums in drawn] == [400, 50]
    assert len(left_out) == 5000
    sizes = 12_000 - left_out[:, 1]
    assert set(sizes.tolist()) == {2, 3}
    assert (values.sum() - left_out[:, 0]).sum() == values.sum()
    exact = Recorder()
    bootstrap_intervals(rows(values[:5000]), exact, draws=1)
    assert (exact.sums[-1][:, 1] == 4999).all()


def test_grouped_rows_count_as_often_as_their_samples() -> None:
    statistic = Recorder()
    bootstrap_intervals(rows(np.arange(6000.0)), statistic, counts=np.full(6000, 3), draws=1)
    whole, drawn, left_out = statistic.sums
    assert whole[0, 1] == 18_000
    assert set((18_000 - left_out[:, 1]).tolist()) == {3, 6}
    assert 17_000 < drawn[0, 1] < 19_000


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
