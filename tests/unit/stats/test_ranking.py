"""ROC and precision–recall: areas as scikit-learn has them, intervals that hold."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from mlscale.stats.ranking import Floats, compute_auc_interval, compute_delong_variance, compute_ranking


@pytest.mark.parametrize("digits", [2, 12])
def test_areas(digits: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(800) < 0.3
    scores = np.round(rng.normal(size=800) + truth, digits)  # with two digits, many are tied
    found = compute_ranking(scores, truth)
    assert found is not None
    assert found.auc.value == pytest.approx(roc_auc_score(truth, scores))
    assert found.average_precision.value == pytest.approx(average_precision_score(truth, scores))
    assert found.auc.low < found.auc.value < found.auc.high
    reported = scores >= found.best_threshold
    hits = (reported & truth).sum()
    assert found.best_f1 == pytest.approx(2 * hits / (reported.sum() + truth.sum()))


def test_delong_as_computed_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    scores, truth = np.round(rng.normal(size=60) * 2), rng.random(60) < 0.4
    pairs = np.sign(scores[truth][:, None] - scores[~truth][None]) / 2 + 0.5
    expected = pairs.mean(1).var(ddof=1) / truth.sum() + pairs.mean(0).var(ddof=1) / (~truth).sum()
    steps = np.unique(scores)[::-1]
    hits, misses = (np.array([(scores[which] == step).sum() for step in steps], float) for which in (truth, ~truth))
    assert compute_delong_variance(hits, misses) == pytest.approx(expected)
    assert math.isnan(compute_delong_variance(np.array([0.0, 1.0]), np.array([3.0, 0.0])))


def test_auc_interval_is_newcombes_where_the_variance_is_not_known() -> None:
    for auc in (0.0, 0.3, 0.9, 0.9985, 1.0):
        found = compute_auc_interval(auc, math.nan, 23, 40)
        assert found.low <= auc <= found.high
        for end in (found.low, found.high):
            others = (23 + 40) / 2 - 1
            shape = 1 + others * (1 - end) / (2 - end) + others * end / (1 + end)
            expected = 1.959964**2 * end * (1 - end) * shape / (23 * 40)
            assert (end - auc) ** 2 == pytest.approx(expected, abs=1e-7)
        mirrored = compute_auc_interval(1 - auc, math.nan, 23, 40)
        assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-6)


def test_perfect_ranking_is_not_certain() -> None:
    for n in (1, 5, 500):
        found = compute_ranking(np.repeat([0.0, 1.0], n), np.repeat([0, 1], n))
        assert found is not None
        for area in (found.auc, found.average_precision):
            assert (area.value, area.high) == (1, 1)
            assert 0 <= area.low < 1
        assert found.auc.low > 0.99 * (n == 500)


def positives_and_negatives(auc: float, m: int, n: int, spread: float, seed: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Scores of two normal distributions with this AUC."""
    rng = np.random.default_rng(seed)
    shift = np.sqrt(1 + spread**2) * norm.ppf(auc)
    return np.concatenate([rng.normal(shift, spread, m), rng.normal(size=n)]), np.arange(m + n) < m


@pytest.mark.parametrize(
    ("auc", "m", "n", "spread"),
    [
        (0.5, 40, 40, 1), (0.76, 150, 150, 1), (0.97, 10, 200, 1), (0.99, 50, 50, 1), (0.99, 30, 1000, 3),
        (0.999, 100, 100, 1),
    ],
)  # fmt: skip
def test_the_true_area_lies_within(auc: float, m: int, n: int, spread: float) -> None:
    inside = 0
    for seed in range(150):
        found = compute_ranking(*positives_and_negatives(auc, m, n, spread, seed), draws=2)
        assert found is not None
        inside += found.auc.low <= auc <= found.auc.high
    assert inside >= 135  # 95 % of 150, less three standard errors


def test_the_true_average_precision_lies_within() -> None:
    truth = average_precision_score(*positives_and_negatives(0.99, 50_000, 50_000, 1, 0)[::-1])
    inside = 0
    for seed in range(120):
        found = compute_ranking(*positives_and_negatives(0.99, 50, 50, 1, seed + 1), draws=100)
        assert found is not None
        inside += found.average_precision.low <= truth <= found.average_precision.high
    assert inside >= 107


def test_infinite_scores_are_ranked_and_unknown_ones_left_out() -> None:
    scores = np.array([np.inf, 1.0, 0.0, -np.inf, np.nan])
    found = compute_ranking(scores, np.array([1, 0, 1, 0, 1]))
    assert found is not None
    assert (found.positives, found.negatives, found.auc.value) == (2, 2, 0.75)
    with pytest.raises(ValueError, match="the same samples"):
        compute_ranking(scores, np.ones(4))


def test_no_curve_of_one_class() -> None:
    assert compute_ranking(np.arange(4.0), np.ones(4)) is None
    assert compute_ranking(np.arange(4.0), np.zeros(4)) is None
