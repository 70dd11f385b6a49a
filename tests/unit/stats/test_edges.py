"""What is no sample raises, and never gives a number; the smallest and the oddest samples give one that is true."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from mlscale.stats.chi2 import run_chi2_test
from mlscale.stats.discoveries import apply_benjamini_hochberg
from mlscale.stats.intervals import compute_quantile_interval, compute_share_interval, compute_wilson_interval
from mlscale.stats.paired import compare_paired, compute_mcnemar_exact_p, compute_mcnemar_mid_p, compute_score_interval
from mlscale.stats.ranking import compute_ranking
from mlscale.stats.reliability import assign_bins, compute_reliability, fit_temperature

NAN, INF = math.nan, math.inf


def array(*values: float) -> Any:
    return np.array(values)


@pytest.mark.parametrize(
    "call",
    [
        lambda: compute_wilson_interval(0, 0), lambda: compute_wilson_interval(-1, 3),
        lambda: compute_wilson_interval(4, 3), lambda: compute_wilson_interval(1, -2),
        lambda: compute_wilson_interval(1, 2, 0), lambda: compute_wilson_interval(1, 2, 1),
        lambda: compute_wilson_interval(1, 2, 95), lambda: compute_wilson_interval(1, 2, NAN),
        lambda: compute_quantile_interval(array(), 0.5), lambda: compute_quantile_interval(array(1, NAN), 0.5),
        lambda: compute_quantile_interval(np.ones((2, 2)), 0.5),
        lambda: compute_quantile_interval(array(1), 0), lambda: compute_quantile_interval(array(1), 1.1),
        lambda: compute_quantile_interval(array(1), NAN),
        lambda: compute_quantile_interval(array(1), 0.5, 1.0),
        lambda: run_chi2_test(array(1, -1), array(1, 2)), lambda: run_chi2_test(array(1, NAN), array(1, 2)),
        lambda: run_chi2_test(array(1, INF), array(1, 2)), lambda: run_chi2_test(array(0, 0), array(1, 2)),
        lambda: run_chi2_test(array(), array()),
        lambda: run_chi2_test(array(1, 2), array(1, 2, 3)), lambda: run_chi2_test(array(1)[0], array(2)[0]),
        lambda: apply_benjamini_hochberg([0.1, NAN], 0.05), lambda: apply_benjamini_hochberg([1.1], 0.05),
        lambda: apply_benjamini_hochberg([-0.1], 0.05), lambda: apply_benjamini_hochberg([0.1], NAN),
        lambda: apply_benjamini_hochberg([0.1], 5),
        lambda: compute_mcnemar_mid_p(-1, 2), lambda: compute_mcnemar_mid_p(1, -2),
        lambda: compute_mcnemar_exact_p(-1, 1), lambda: compute_mcnemar_exact_p(2, -1),
        lambda: compute_score_interval(-1, 0, 3), lambda: compute_score_interval(1, -1, 3),
        lambda: compute_score_interval(0, 0, 0), lambda: compute_score_interval(2, 2, 3),
        lambda: compute_score_interval(1, 1, 3, 0.5), lambda: compute_score_interval(1, 1, 3, 1.0),
        lambda: compute_score_interval(1, 1, 3, NAN),
        lambda: compare_paired(array(), array()), lambda: compare_paired(array(1, NAN), array(1, 0)),
        lambda: compare_paired(array(2), array(1)), lambda: compare_paired(array(1, 0), array(1, 2)),
        lambda: compute_mcnemar_mid_p(2.5, 3),  # type: ignore[arg-type]
        lambda: compute_mcnemar_mid_p(INF, 3),  # type: ignore[arg-type]
        lambda: compute_score_interval(2.5, 0, 9),  # type: ignore[arg-type]
        lambda: compute_reliability(array(0.5), array(2)), lambda: compute_reliability(array(0.5), array(NAN)),
        lambda: compute_ranking(array(1, 2), array(2, 0)), lambda: compute_ranking(array(1, 2), array(NAN, 0)),
        lambda: compute_ranking(array(1, 2), array(-1, 1)),
        lambda: compute_share_interval(NAN, 0.1, 5), lambda: compute_share_interval(1.1, 0.1, 5),
        lambda: compute_share_interval(0.5, 0.1, 0),
        lambda: compute_share_interval(0.5, 0.1, 5, 1.0),
        lambda: assign_bins(array()), lambda: assign_bins(array(NAN)), lambda: compute_reliability(array(), array()),
        lambda: compute_reliability(array(0.5, NAN), array(1, 1)), lambda: compute_reliability(array(0.5), array(1, 1)),
        lambda: fit_temperature(np.zeros((0, 2)), np.zeros(0, int)),
        lambda: fit_temperature(np.ones((1, 2)), np.array([2])),
        lambda: fit_temperature(np.ones((1, 2)), np.array([-1])),
        lambda: fit_temperature(np.full((1, 2), NAN), np.array([0])),
        lambda: fit_temperature(np.ones((1, 2)), np.array([0, 1])),
        lambda: fit_temperature(np.ones(2), np.array([0, 1])),
    ],
)  # fmt: skip
def test_what_is_no_sample_raises(call: Callable[[], object]) -> None:
    with np.errstate(all="raise"), pytest.raises(ValueError, match=r"[a-z]"):
        call()


def test_the_smallest_samples() -> None:
    assert (compute_wilson_interval(0, 1).low, compute_wilson_interval(1, 1).high) == (0, 1)
    one = compute_quantile_interval(array(3), 0.5)
    assert (one.value, one.low, one.high) == (3, -INF, INF)
    assert compute_quantile_interval(array(-INF, 0, INF), 0.5).value == 0
    assert run_chi2_test(array(1), array(2)).p == 1
    assert run_chi2_test(array(1, 0, 0), array(0, 0, 1)).distance == 1
    assert compare_paired(array(0), array(1)).p == pytest.approx(0.5)  # mid-p
    assert compute_mcnemar_exact_p(1, 0) == 1
    low, high = compute_score_interval(0, 0, 1)
    assert -1 < low < 0 < high < 1
    assert compute_reliability(array(0.7), array(1)).ece == pytest.approx(0.3)
    assert 0.05 <= fit_temperature(np.array([[1.0, 0.0]]), np.array([0])) <= 20


def test_ties() -> None:
    tied = compute_quantile_interval(np.ones(100), 0.5)
    assert (tied.low, tied.value, tied.high) == (1, 1, 1)
    assert assign_bins(np.full(100, 0.5)).tolist() == [0] * 100


@pytest.mark.parametrize("seed", range(20))
def test_random_cases_as_scipy_has_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    k = int(rng.integers(0, n + 1))
    level = float(rng.uniform(0.5, 0.999))
    interval = stats.binomtest(k, n).proportion_ci(level, "wilson")
    assert (compute_wilson_interval(k, n, level).low, compute_wilson_interval(k, n, level).high) == pytest.approx(
        (interval.low, interval.high)
    )
    counts = rng.integers(20, 90, (2, int(rng.integers(2, 8))))
    assert run_chi2_test(*counts).p == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue)
    p = rng.random(n).tolist()
    assert apply_benjamini_hochberg(p, 0.05).q == pytest.approx(stats.false_discovery_control(p))
    gained, lost = rng.integers(0, 12, 2).tolist()
    assert compute_mcnemar_exact_p(gained, lost) == pytest.approx(
        stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1
    )
    low, high = compute_score_interval(gained, lost, gained + lost + 5, max(level, 0.51))
    assert -1 <= low <= (gained - lost) / (gained + lost + 5) <= high <= 1


@pytest.mark.parametrize("p", [[0, 0, 1], (0.0, 0.0, 1.0), np.array([0, 0, 1]), np.array([0, 0, 1], np.float32)])
def test_p_values_may_be_whole_numbers_and_arrays(p: Any) -> None:
    assert apply_benjamini_hochberg(p, 0.05).is_significant == (True, True, False)


def test_a_share_of_independent_trials_has_wilsons_interval() -> None:
    for hits, n in ((0, 7), (7, 7), (3, 7), (999, 1000)):
        value = hits / n
        found, known = compute_share_interval(value, value * (1 - value) / n, n), compute_wilson_interval(hits, n)
        assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert compute_share_interval(0.5, 2 * 0.25 / 1000, 1000).high > compute_share_interval(0.5, 0.25 / 1000, 1000).high
