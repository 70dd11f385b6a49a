"""The ratio of two times over paired rounds, and where it lies."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from mlscale.stats.ratios import compute_ratio_interval


def test_a_ratio_without_noise_is_itself() -> None:
    found = compute_ratio_interval([2.0, 4.0, 8.0], [1.0, 2.0, 4.0])
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2))


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("rounds", [2, 5])
def test_the_interval_is_students_of_the_logarithms(rounds: int, confidence: float) -> None:
    first, second = np.random.default_rng(rounds).lognormal(size=(2, rounds))
    found = compute_ratio_interval(first.tolist(), second.tolist(), confidence)
    expected = stats.ttest_rel(np.log(first), np.log(second)).confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))
    assert found.value == pytest.approx(stats.gmean(first / second))


def test_it_is_symmetric() -> None:
    one, other = (
        compute_ratio_interval([3.0, 2.0, 2.5], [1.0, 1.1, 0.9]),
        compute_ratio_interval([1.0, 1.1, 0.9], [3.0, 2.0, 2.5]),
    )
    assert one.value == pytest.approx(1 / other.value)
    assert one.low == pytest.approx(1 / other.high)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        moods = random.lognormal(0, 0.5, 7)  # what both of a round share
        first, second = (1.5 * moods * random.lognormal(0, 0.1, 7), moods * random.lognormal(0, 0.1, 7))
        found = compute_ratio_interval(first.tolist(), second.tolist())
        held += found.low <= 1.5 <= found.high
    assert 930 <= held <= 968


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1.0], [1.0]),
        ([1.0, 0.0], [1.0, 1.0]),
        ([1.0, -1.0], [1.0, 1.0]),
        ([1.0, 1.0], [1.0, np.inf]),
        ([1.0, 1.0], [np.nan, 1.0]),
        ([1.0, 1.0], [1.0]),
        ([1.0], [1.0, 1.0]),
        ([[1.0, 1.0], [2.0, 3.0]], [[1.0, 1.0], [1.0, 2.0]]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered")
def test_what_is_no_ratio_is_refused(first: Any, second: Any) -> None:
    with pytest.raises(ValueError, match="positive numbers"):
        compute_ratio_interval(first, second)


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5])
def test_another_confidence_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence"):
        compute_ratio_interval([1.0, 2.0], [1.0, 2.0], confidence)
