"""What is no sample raises, and never gives a number; the smallest and the oddest samples give one that is true."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mlscale.stats.chi2 import chi2
from mlscale.stats.discoveries import benjamini_hochberg
from mlscale.stats.intervals import quantile, share_interval, wilson
from mlscale.stats.ks import ks
from mlscale.stats.paired import mcnemar, mcnemar_exact, paired, score_interval
from mlscale.stats.ranking import ranking
from mlscale.stats.ratios import ratio
from mlscale.stats.reliability import bins_of, reliability, temperature

NAN, INF = math.nan, math.inf


def array(*values: float) -> Any:
    return np.array(values)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(0, 0), lambda: wilson(-1, 3), lambda: wilson(4, 3), lambda: wilson(1, -2),
        lambda: wilson(1, 2, 0), lambda: wilson(1, 2, 1), lambda: wilson(1, 2, 95), lambda: wilson(1, 2, NAN),
        lambda: quantile(array(), 0.5), lambda: quantile(array(1, NAN), 0.5), lambda: quantile(np.ones((2, 2)), 0.5),
        lambda: quantile(array(1), 0), lambda: quantile(array(1), 1.1), lambda: quantile(array(1), NAN),
        lambda: quantile(array(1), 0.5, 1.0),
        lambda: chi2(array(1, -1), array(1, 2)), lambda: chi2(array(1, NAN), array(1, 2)),
        lambda: chi2(array(1, INF), array(1, 2)), lambda: chi2(array(0, 0), array(1, 2)),
        lambda: chi2(array(), array()),
        lambda: chi2(array(1, 2), array(1, 2, 3)), lambda: chi2(array(1)[0], array(2)[0]),
        lambda: benjamini_hochberg([0.1, NAN], 0.05), lambda: benjamini_hochberg([1.1], 0.05),
        lambda: benjamini_hochberg([-0.1], 0.05), lambda: benjamini_hochberg([0.1], NAN),
        lambda: benjamini_hochberg([0.1], 5),
        lambda: ks(array(), array(1)), lambda: ks(array(1), array()), lambda: ks(np.ones((2, 2)), array(1)),
        lambda: mcnemar(-1, 2), lambda: mcnemar(1, -2), lambda: mcnemar_exact(-1, 2), lambda: mcnemar_exact(2, -1),
        lambda: score_interval(-1, 0, 3), lambda: score_interval(0, 0, 0), lambda: score_interval(2, 2, 3),
        lambda: score_interval(1, 1, 3, 0.5), lambda: score_interval(1, 1, 3, 1.0),
        lambda: score_interval(1, 1, 3, NAN),
        lambda: paired(array(), array()), lambda: paired(array(1, NAN), array(1, 0)),
        lambda: paired(array(2), array(1)),
        lambda: mcnemar(2.5, 3),  # type: ignore[arg-type]
        lambda: mcnemar(INF, 3),  # type: ignore[arg-type]
        lambda: score_interval(2.5, 0, 9),  # type: ignore[arg-type]
        lambda: reliability(array(0.5), array(2)), lambda: reliability(array(0.5), array(NAN)),
        lambda: ranking(array(1, 2), array(2, 0)), lambda: ranking(array(1, 2), array(NAN, 0)),
        lambda: ranking(array(1, 2), array(-1, 1)),
        lambda: share_interval(NAN, 0.1, 5), lambda: share_interval(1.1, 0.1, 5), lambda: share_interval(0.5, 0.1, 0),
        lambda: share_interval(0.5, 0.1, 5, 1.0), lambda: ratio([1, 2], [2, 3], 2), lambda: ratio([1, 2], [2, 3], NAN),
        lambda: ratio([1], [1]), lambda: ratio([1, 2], [1]), lambda: ratio([1, -2], [1, -2]),
        lambda: ratio([1, 0], [1, 1]),
        lambda: ratio([1, 1], [0, 1]), lambda: ratio([1, NAN], [1, 1]), lambda: ratio([1, INF], [1, INF]),
        lambda: bins_of(array()), lambda: bins_of(array(NAN)), lambda: reliability(array(), array()),
        lambda: reliability(array(0.5, NAN), array(1, 1)), lambda: reliability(array(0.5), array(1, 1)),
        lambda: temperature(np.zeros((0, 2)), np.zeros(0, int)), lambda: temperature(np.ones((1, 2)), np.array([2])),
        lambda: temperature(np.ones((1, 2)), np.array([-1])), lambda: temperature(np.full((1, 2), NAN), np.array([0])),
        lambda: temperature(np.ones((1, 2)), np.array([0, 1])), lambda: temperature(np.ones(2), np.array([0, 1])),
    ],
)  # fmt: skip
def test_what_is_no_sample_raises(call: Callable[[], object]) -> None:
    with np.errstate(all="raise"), pytest.raises(ValueError, match=r"[a-z]"):
        call()


def test_the_smallest_samples() -> None:
    assert (wilson(0, 1).low, wilson(1, 1).high) == (0, 1)
    one = quantile(array(3), 0.5)
    assert (one.value, one.low, one.high) == (3, -INF, INF)
    assert quantile(array(-INF, 0, INF), 0.5).value == 0
    assert ks(array(1), array(1)).p == ks(array(1), array(5)).p == 1
    assert chi2(array(1), array(2)).p == 1
    assert chi2(array(1, 0, 0), array(0, 0, 1)).distance == 1
    assert paired(array(0), array(1)).p == pytest.approx(0.5)  # mid-p
    assert mcnemar_exact(1, 0) == 1
    low, high = score_interval(0, 0, 1)
    assert -1 < low < 0 < high < 1
    assert reliability(array(0.7), array(1)).ece == pytest.approx(0.3)
    assert 0.05 <= temperature(np.array([[1.0, 0.0]]), np.array([0])) <= 20


def test_ties() -> None:
    tied = quantile(np.ones(100), 0.5)
    assert (tied.low, tied.value, tied.high) == (1, 1, 1)
    assert ks(np.ones(50), np.ones(30)).distance == 0
    assert bins_of(np.full(100, 0.5)).tolist() == [0] * 100
    assert ratio([2, 2], [1, 1]).low == 2


@pytest.mark.parametrize("seed", range(20))
def test_random_cases_as_scipy_has_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    k = int(rng.integers(0, n + 1))
    level = float(rng.uniform(0.5, 0.999))
    interval = stats.binomtest(k, n).proportion_ci(level, "wilson")
    assert (wilson(k, n, level).low, wilson(k, n, level).high) == pytest.approx((interval.low, interval.high))
    values = np.round(rng.normal(size=n), int(rng.integers(0, 3)))
    other = np.round(rng.normal(size=int(rng.integers(1, 60))), 1)
    found, theirs = ks(np.sort(values), other), stats.ks_2samp(values, other, method="exact")
    assert (found.distance, found.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    counts = rng.integers(20, 90, (2, int(rng.integers(2, 8))))
    assert chi2(*counts).p == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue)
    p = rng.random(n).tolist()
    assert benjamini_hochberg(p, 0.05).q == pytest.approx(stats.false_discovery_control(p))
    gained, lost = rng.integers(0, 12, 2).tolist()
    assert mcnemar_exact(gained, lost) == pytest.approx(
        stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1
    )
    low, high = score_interval(gained, lost, gained + lost + 5, max(level, 0.51))
    assert -1 <= low <= (gained - lost) / (gained + lost + 5) <= high <= 1


@pytest.mark.parametrize("p", [[0, 0, 1], (0.0, 0.0, 1.0), np.array([0, 0, 1]), np.array([0, 0, 1], np.float32)])
def test_p_values_may_be_whole_numbers_and_arrays(p: Any) -> None:
    assert benjamini_hochberg(p, 0.05).found == (True, True, False)


def test_a_share_of_independent_trials_has_wilsons_interval() -> None:
    for hits, n in ((0, 7), (7, 7), (3, 7), (999, 1000)):
        value = hits / n
        found, known = share_interval(value, value * (1 - value) / n, n), wilson(hits, n)
        assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert share_interval(0.5, 2 * 0.25 / 1000, 1000).high > share_interval(0.5, 0.25 / 1000, 1000).high
