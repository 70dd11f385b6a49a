"""The difference of two means on the same samples, compared with scipy, and how often its ends are wrong."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ttest_1samp, ttest_rel

from mlscale.stats.paired import compute_paired_difference


def errors(n: int, seed: int, gain: float = 0.02) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Skewed errors of two models on the same samples: those of the second are larger by `gain` on average."""
    random = np.random.default_rng(seed)
    first = random.gamma(1.5, 20, n)
    return first, first * random.lognormal(np.log(1 + gain) - 0.02, 0.2, n)


@pytest.mark.parametrize("n", [10, 77, 400])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_a_difference_is_that_of_the_paired_t_test(n: int, confidence: float) -> None:
    first, second = errors(n, n)
    expected = ttest_rel(second, first).confidence_interval(2 * confidence - 1)
    found = compute_paired_difference(first, second, confidence=confidence)
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("unit", [1, -1, 0.01, -0.01])
def test_the_ends_of_a_share_are_those_that_the_t_test_just_accepts(unit: float) -> None:
    first, second = (unit * values for values in errors(60, 5))
    second[:5] = first[:5]
    found = compute_paired_difference(first, second, is_relative=True)
    assert found.value == pytest.approx((second.mean() - first.mean()) / abs(first.mean()))
    for end, alternative in ((found.low, "greater"), (found.high, "less")):
        remainder = second - first - end * abs(first)
        assert ttest_1samp(remainder, 0, alternative=alternative).pvalue == pytest.approx(0.05)


def test_its_ends_are_wrong_about_as_often_as_they_may_be() -> None:
    found = [compute_paired_difference(*errors(100, seed), is_relative=True) for seed in range(600)]
    for wrong in (sum(item.low > 0.02 for item in found), sum(item.high < 0.02 for item in found)):
        assert 12 < wrong < 50  # 30 are expected


def test_what_does_not_differ_is_certain_and_few_samples_are_not() -> None:
    same = np.zeros(12)
    assert compute_paired_difference(same, same, is_relative=True).high == 0
    assert compute_paired_difference(same + 3, same + 3, is_relative=True).low == 0
    for few in (same[:9], same[:1]):
        found = compute_paired_difference(few, few + 1)
        assert found.value == 1
        assert math.isnan(found.low)
        assert math.isnan(found.high)


def test_what_has_no_scale_is_not_bounded() -> None:
    random = np.random.default_rng(0)
    around_zero = random.normal(0, 1, 40)
    found = compute_paired_difference(around_zero, around_zero + 0.1, is_relative=True)
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert compute_paired_difference(np.zeros(20), np.ones(20), is_relative=True).value == math.inf
    infinite = np.ones(20)
    infinite[3] = math.inf
    found = compute_paired_difference(np.ones(20), infinite)
    assert found.value == math.inf
    assert math.isnan(found.high)
    assert compute_paired_difference(infinite, np.ones(20)).value == -math.inf


@pytest.mark.parametrize(
    ("first", "second", "confidence"),
    [([], [], 0.95), ([1, 2], [1], 0.95), ([[1]], [[1]], 0.95), ([1, np.nan], [1, 2], 0.95),
     ([1, 2], [1, np.nan], 0.95), *(([1, 2], [1, 3], confidence) for confidence in (0.5, 1.0, 1.5))],
)  # fmt: skip
def test_what_can_not_be_compared(first: list[float], second: list[float], confidence: float) -> None:
    with pytest.raises(ValueError, match=r"samples|confidence"):
        compute_paired_difference(np.array(first), np.array(second), confidence=confidence)
