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


def test_a_short_series_is_rather_said_to_be_too_dependent() -> None:
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
