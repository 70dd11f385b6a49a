"""Two classifiers on the same samples: published examples, and how often the statements are wrong."""

import functools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import binomtest, norm

from mlscale.stats.paired import compare_paired, compute_mcnemar_exact_p, compute_mcnemar_mid_p, compute_score_interval


def test_mcnemar_as_published() -> None:
    """Fagerland, Lydersen and Laake 2013: airway reactivity in 21 children, 1 and 7 discordant pairs."""
    assert compute_mcnemar_mid_p(1, 7)[0] == pytest.approx(0.0391, abs=5e-5)
    assert compute_mcnemar_mid_p(7, 1)[0] == compute_mcnemar_mid_p(1, 7)[0]
    assert compute_mcnemar_mid_p(7, 1)[1] == pytest.approx(0.0391 / 2, abs=5e-5)


@pytest.mark.parametrize(("gained", "lost"), [(3, 9), (0, 6), (5, 5), (1, 0)])
def test_mid_p_is_the_exact_p_less_half_of_what_was_seen(gained: int, lost: int) -> None:
    exact = binomtest(gained, gained + lost, 0.5)
    seen = binomtest(gained, gained + lost, 0.5, "less").pvalue - (
        binomtest(gained - 1, gained + lost, 0.5, "less").pvalue if gained else 0
    )
    assert compute_mcnemar_mid_p(gained, lost)[0] == pytest.approx(
        exact.pvalue - (seen if gained != lost else seen / 2)
    )
    better = binomtest(gained, gained + lost, 0.5, "greater").pvalue - seen / 2
    assert compute_mcnemar_mid_p(gained, lost)[1] == pytest.approx(better)


def test_no_difference_seen() -> None:
    assert compute_mcnemar_mid_p(0, 0) == (1.0, 1.0)
    same = np.array([True, False, True])
    assert compare_paired(same, same).difference == 0
    assert compare_paired(same, same).low < 0 < compare_paired(same, same).high


@pytest.mark.parametrize(
    ("gained", "lost", "n", "low", "high"),
    # Fagerland, Lydersen and Laake, Recommended tests and confidence intervals for paired binomial proportions, 2014.
    [(1, 7, 21, -0.517, -0.026), (6, 16, 161, -0.124, -0.0054)],
)
def test_score_interval_as_published(gained: int, lost: int, n: int, low: float, high: float) -> None:
    assert compute_score_interval(gained, lost, n, 0.975) == pytest.approx((low, high), abs=5e-4)
    assert compute_score_interval(lost, gained, n, 0.975) == pytest.approx((-high, -low), abs=5e-4)


def test_ends_of_extremes() -> None:
    for confidence in (0.55, 0.8, 0.95):
        z = norm.ppf(confidence)
        # As Wilson's.
        assert compute_score_interval(0, 0, 44, confidence)[1] == pytest.approx(z * z / (44 + z * z), abs=1e-9)
        low, high = compute_score_interval(9, 0, 9, confidence)
        assert high == 1
        assert 0 < low < 1
        assert compute_score_interval(0, 9, 9, confidence) == pytest.approx((-1, -low))
    assert compute_score_interval(0, 0, 1)[0] < -0.5


def compute_most_likely_score(gained: int, lost: int, n: int, difference: float) -> float:
    """The score of a true difference, whose probability of `lost` is searched for."""

    def measure_unlikelihood(losing: float) -> float:
        counts, chances = (gained, lost, n - gained - lost), (losing + difference, losing, 1 - 2 * losing - difference)
        return -float(xlogy(counts, np.maximum(chances, 1e-300)).sum())

    ends = (max(0.0, -difference), (1 - difference) / 2)
    losing = minimize_scalar(measure_unlikelihood, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    variance = (2 * losing + difference * (1 - difference)) / n
    return float(((gained - lost) / n - difference) / np.sqrt(variance))


@pytest.mark.parametrize(("gained", "lost", "n"), [(1, 0, 2), (1, 1, 2), (0, 3, 4), (2, 5, 9), (30, 12, 200)])
@pytest.mark.parametrize("confidence", [0.51, 0.7, 0.95])
def test_the_ends_are_what_a_score_test_just_does_not_reject(gained: int, lost: int, n: int, confidence: float) -> None:
    low, high = compute_score_interval(gained, lost, n, confidence)
    assert low < (gained - lost) / n < high
    scores = [compute_most_likely_score(gained, lost, n, end) for end in (low, high)]
    assert scores == pytest.approx([norm.ppf(confidence), -norm.ppf(confidence)], abs=1e-5)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 1.5])
def test_an_end_has_a_confidence(confidence: float) -> None:
    with pytest.raises(ValueError, match=f"between 0.5 and 1, and is {confidence}"):
        compute_score_interval(1, 1, 3, confidence)


def test_which_is_which() -> None:
    first = np.array([True] * 90 + [False] * 10)
    second = np.array([True] * 88 + [False] * 2 + [True] * 8 + [False] * 2)
    found = compare_paired(first, second)
    assert (found.samples, found.gained, found.lost) == (100, 8, 2)
    assert found.difference == pytest.approx(0.06)
    assert found.low < 0.06 < found.high
    assert found.p_better < 0.05 < found.p < 0.1
    assert compare_paired(second, first).low == pytest.approx(-found.high)


@pytest.mark.parametrize("second", [np.array([True]), np.array([[True, False]])])
def test_other_samples_are_refused(second: NDArray[np.bool_]) -> None:
    with pytest.raises(ValueError, match="the same samples"):
        compare_paired(np.array([True, False]), second)


@pytest.mark.parametrize(
    ("n", "gains", "loses"), [(200, 0.05, 0.05), (300, 0.02, 0.05), (1000, 0.01, 0.01), (100, 0, 0.05)]
)
def test_wrong_as_seldom_as_stated(n: int, gains: float, loses: float) -> None:
    generator = np.random.default_rng(n)
    compute_once = functools.cache(compute_score_interval)  # the same numbers are drawn again and again
    drawn = generator.multinomial(n, [gains, loses, 1 - gains - loses], 1_000)
    ends = [compute_once(int(g), int(k), n, 0.95) for g, k, _ in drawn]
    truth, slack = gains - loses, 4 * np.sqrt(0.05 / 1_000)
    assert np.mean([low > truth for low, _ in ends]) <= 0.05 + slack
    assert np.mean([high < truth for _, high in ends]) <= 0.05 + slack
    if gains == loses:
        assert np.mean([compute_mcnemar_mid_p(int(g), int(k))[1] <= 0.05 for g, k, _ in drawn]) <= 0.05 + slack


def test_the_exact_test_is_the_binomial_one_and_never_sharper_than_mid_p() -> None:
    assert compute_mcnemar_exact_p(0, 0) == 1
    assert compute_mcnemar_exact_p(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    for gained, lost in ((3, 3), (2, 11), (0, 5)):
        assert compute_mcnemar_exact_p(gained, lost) >= compute_mcnemar_mid_p(gained, lost)[0] - 1e-12
