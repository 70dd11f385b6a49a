"""The integrated autocorrelation time of series whose time is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from mlscale.stats.autocorrelation import estimate_correlation_time


def draw(n: int, rho: float, seed: int) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).normal(size=n)
    noise[1:] *= np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1], [1, -rho], noise))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("n", [1000, 10_000])
def test_the_time_of_a_first_order_series(n: int, rho: float) -> None:
    true = (1 + rho) / (1 - rho)
    found = np.array([estimate_correlation_time(draw(n, rho, seed)) for seed in range(15)])
    # An upper estimate: two standard errors are added.
    assert true * 0.95 <= np.median(found) <= true * (1.1 + 5 * np.sqrt(true / n))


def test_independent_samples_lose_next_to_nothing() -> None:
    found = [estimate_correlation_time(draw(1000, 0, seed)) for seed in range(50)]
    assert min(found) == 1
    assert np.mean(found) < 1.1


def test_a_short_series_is_rather_printed_to_be_too_dependent() -> None:
    found = [estimate_correlation_time(draw(100, 0.95, seed)) for seed in range(50)]
    assert np.mean(np.array(found) >= 39) > 0.6  # subtracting the mean alone would leave 15


def test_a_long_memory_is_followed_by_blocks() -> None:
    block = np.repeat(np.random.default_rng(0).normal(size=100), 100)
    assert 70 <= estimate_correlation_time(block) <= 400  # few blocks: rather too long
    walk = np.cumsum(np.random.default_rng(0).normal(size=1000))
    assert estimate_correlation_time(walk) > 100


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0], [2.0] * 50])
def test_what_has_no_autocorrelation(values: list[float]) -> None:
    assert estimate_correlation_time(np.array(values)) == 1


@pytest.mark.parametrize("step", [200, 500, 900])
def test_a_step_is_not_a_long_memory(step: int) -> None:
    series = draw(1000, 0, 0) + 2 * (np.arange(1000) >= step)
    assert estimate_correlation_time(series) < 40


def test_an_alternating_series_does_not_count_for_more_than_it_has() -> None:
    assert estimate_correlation_time(np.tile([0.0, 1.0], 100)) == 1


def test_no_more_than_the_whole_series() -> None:
    assert estimate_correlation_time(np.arange(20.0)) <= 20


def covary(series: NDArray[np.float64], lag: int) -> float:
    return float(sum(series[i] * series[i + lag] for i in range(len(series) - lag))) / len(series)


def sum_pairs(series: NDArray[np.float64]) -> float:
    """Geyer's initial monotone sequence, as his paper has it: pairs of lags, while they are positive, none above the
    one before."""
    pairs, total = [covary(series, lag) + covary(series, lag + 1) for lag in range(0, min(32, len(series) - 2), 2)], 0.0
    for number, pair in enumerate(pairs):
        if pair <= 0:
            break
        total += min([*pairs[:number], pair])
    return 2 * total / covary(series, 0) - 1


def add_errors(time: float, n: int) -> float:
    return float(time * (1 + 2 * np.sqrt((time - 1) / n)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("n", "rho"), [(120, 0.0), (120, 0.3), (399, 0.4), (127, -0.5)])
def test_a_series_of_many_times_is_estimated_without_a_model(n: int, rho: float, seed: int) -> None:
    series = draw(n, rho, seed)
    time = max(1.0, sum_pairs(series - series.mean()))
    if n >= 50 * time:
        assert estimate_correlation_time(series) == pytest.approx(add_errors(time, n))


def test_a_long_series_is_centred_by_quarters() -> None:
    for n in (400, 403):
        series = draw(n, 0.2, 5)
        last = series[n % 4 :].reshape(4, 100)
        centred = (last - last.mean(1, keepdims=True)).ravel()
        time = max(1.0, sum_pairs(centred))
        assert 1.2 < time < 2
        assert estimate_correlation_time(series) == pytest.approx(add_errors(time, n))


@pytest.mark.parametrize("n", [100, 400])
def test_a_series_of_few_times_is_estimated_by_a_model(n: int) -> None:
    for seed in range(4):
        series, segments = draw(n, 0.8, seed).reshape(-1, 100), n // 100
        centred = (series - series.mean(1, keepdims=True)).ravel()
        first = covary(centred, 1) / covary(centred, 0)
        # The bias of an estimate with a mean that is estimated, too (Kendall, 1954).
        first += (1 + 3 * first) / 100
        modelled = (1 + first) / (1 - first)
        found = estimate_correlation_time(series.ravel())
        assert found >= add_errors(modelled, n) * (1 - 1e-9)
        if modelled > sum_pairs(centred):
            assert found == pytest.approx(add_errors(modelled, n))
    assert segments


def test_a_memory_beyond_the_lags_is_that_of_means_of_blocks() -> None:
    # Means of eight have the variance of their mean with an eighth of the lags.
    series = np.repeat(np.random.default_rng(0).normal(size=300), 43)
    quarters = series.reshape(4, -1)
    centred = (quarters - quarters.mean(1, keepdims=True)).ravel()
    means = centred[:-4].reshape(-1, 8).mean(1)  # the last four are no block
    means -= means.mean()
    time = 8 * covary(means, 0) / covary(centred, 0) * sum_pairs(means)
    assert 30 < time < 60
    assert estimate_correlation_time(series) == pytest.approx(add_errors(time, len(series)), rel=1e-9)


def test_pairs_that_stay_positive_are_summed_up_to_the_last_lag() -> None:
    # Neighbours alternate, which pairs of lags do not see, around a slow wave, which a first-order model does not see.
    at = np.arange(120)
    series = np.cos(at * np.pi / 120) + np.where(at % 2, 2, -2)
    time = sum_pairs(series - series.mean())
    assert 2 < time < 10
    assert estimate_correlation_time(series) == pytest.approx(add_errors(time, 120))


@pytest.mark.parametrize("n", [20, 100])
def test_a_trend_is_worth_one_sample(n: int) -> None:
    assert estimate_correlation_time(np.arange(float(n))) == n


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 2.0, 2.0, 3.0]])
def test_so_short_a_series_is_worth_one_sample_at_least(values: list[float]) -> None:
    assert 1 < estimate_correlation_time(np.array(values)) <= len(values)


def test_infinite_scores_have_no_time() -> None:
    with np.errstate(invalid="ignore"):
        assert estimate_correlation_time(np.array([1.0, 2.0, np.inf, 3.0, 4.0])) == 1
