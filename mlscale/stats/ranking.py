"""Ranking metrics of a score for two classes at every threshold: ROC, precision and recall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.intervals import Interval, compute_share_interval, estimate_variance_scale

Floats = NDArray[np.float64]
_MAX_STEPS = 2000  # of the bootstrap; the cost of a draw grows with them
_MAX_POINTS = 200  # of the returned curves


@dataclass(frozen=True, eq=False)
class Ranking:
    """The ranking metrics of a score.

    Attributes:
        auc: area under the ROC curve: the probability that a positive sample has a higher score than a negative one.
        average_precision: mean of the precision at each positive sample (Davis and Goadrich, 2006, without the linear
            interpolation, which is too optimistic).
        false_positive_rate, recall, precision: along descending thresholds, (t,) each, at most 200 points.
        threshold: of each point, (t,).
        best_threshold, best_f1: the largest F1 and its threshold. Chosen on these samples: an upper bound.
        positives, negatives: the number of each.
    """

    auc: Interval
    average_precision: Interval
    false_positive_rate: Floats
    recall: Floats
    precision: Floats
    threshold: Floats
    best_threshold: float
    best_f1: float
    positives: int
    negatives: int


def compute_ranking(
    scores: NDArray[np.generic],
    truth: NDArray[np.generic],
    *,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Ranking | None:
    """Return ROC and precision–recall curves; intervals of their areas are valid near 1, unlike a bootstrap's.

    The interval of the AUC has the values that a score test does not reject: the variance is a function of the
    tested value (Newcombe, Confidence intervals for an effect size measure based on the Mann–Whitney
    statistic, part 2, 2006), scaled to DeLong's of these samples as far as their errors determine it. The
    interval of the average precision is Wilson's at the number of positives that has the bootstrap's variance; with as
    many positives as there are, it is the binomial interval of Boyd, Eng and Page, Area under the precision–recall
    curve: point estimates and confidence intervals, 2013.

    Args:
        scores: the higher, the more likely positive, (n,); infinite ones are the first or the last, NaN is left out.
        truth: True where a sample is positive, (n,).
        confidence: of the intervals, two-sided.
        draws: of the bootstrap, positives and negatives separately; in at most 2,000 steps of equal size.
        seed: the same seed gives the same interval.

    Returns:
        None where there are no positives, or no negatives: no curve is defined.

    Raises:
        ValueError: scores and truth differ in length, or one is neither positive nor negative.
    """
    values, positive = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if values.ndim != 1 or values.shape != positive.shape:
        raise ValueError(f"scores and truth must be of the same samples: {values.shape} and {positive.shape}")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("truth must be positive or not: true or false, 1 or 0")
    known = ~np.isnan(values)
    values, positive = values[known], positive[known]
    if not positive.any() or positive.all():
        return None
    # Negated, so that steps go from the highest score down; equal scores are one step.
    steps, step_index = np.unique(-values, return_inverse=True)
    hits = np.bincount(step_index[positive], minlength=len(steps)).astype(np.float64)
    misses = np.bincount(step_index[~positive], minlength=len(steps)).astype(np.float64)
    tp, fp = hits.cumsum(), misses.cumsum()
    precision, recall = tp / (tp + fp), tp / tp[-1]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = int(f1.argmax())
    auc, average = _compute_areas(hits[None], misses[None])
    variances = compute_delong_variance(hits, misses), _estimate_precision_variance(hits, misses, draws, seed)
    shown = np.unique(np.linspace(0, len(steps) - 1, _MAX_POINTS).astype(int))
    return Ranking(
        auc=compute_auc_interval(float(auc[0]), variances[0], int(tp[-1]), int(fp[-1]), confidence),
        average_precision=compute_share_interval(float(average[0]), variances[1], int(tp[-1]), confidence),
        false_positive_rate=fp[shown] / fp[-1],
        recall=recall[shown],
        precision=precision[shown],
        threshold=-steps[shown],
        best_threshold=float(-steps[best]),
        best_f1=float(f1[best]),
        positives=int(tp[-1]),
        negatives=int(fp[-1]),
    )


def _compute_areas(hits: Floats, misses: Floats) -> tuple[Floats, Floats]:
    """Return AUC and average precision, (b,) each, from positives and negatives at each step, (b, t), highest first."""
    tp, fp = hits.cumsum(-1), misses.cumsum(-1)
    positives, negatives = tp[:, -1], fp[:, -1]
    # A negative is ranked below the positives of higher steps, and half below those of its own step.
    auc = (misses * (tp - hits / 2)).sum(-1) / (positives * negatives)
    precision = tp / np.maximum(tp + fp, 1)
    return auc, (precision * hits).sum(-1) / positives


def compute_delong_variance(hits: Floats, misses: Floats) -> float:
    """Return the variance of the AUC as DeLong et al. estimate it (1988); NaN with one positive or one negative.

    Args:
        hits, misses: positives and negatives at each step, (t,), highest score first.
    """
    positives, negatives = hits.sum(), misses.sum()
    if min(positives, negatives) < 2:
        return math.nan
    beaten = 1 - (misses.cumsum() - misses / 2) / negatives  # share of the negatives below a positive
    above = (hits.cumsum() - hits / 2) / positives  # share of the positives above a negative
    variance = 0.0
    for shares, times, n in ((beaten, hits, positives), (above, misses, negatives)):
        mean = times @ shares / n
        variance += times @ (shares - mean) ** 2 / (n - 1) / n
    return float(variance)


def compute_auc_interval(
    auc: float, variance: float, positives: int, negatives: int, confidence: float = 0.95
) -> Interval:
    """Return the score interval of an AUC.

    Args:
        auc: of the samples, 0 to 1.
        variance: DeLong's; NaN where it is not known.
        positives, negatives: samples of each, 1 at least.
        confidence: two-sided.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    expected = _compute_auc_variance(auc, positives, negatives)
    scale = estimate_variance_scale(auc, variance / expected if expected > 0 else 1.0, min(positives, negatives))

    def compute_variance_excess(tested: float) -> float:
        return (tested - auc) ** 2 - z * z * scale * _compute_auc_variance(tested, positives, negatives)

    # At 0 and 1 the variance is zero, so they are outside of the interval; the observed value is inside.
    nearest = min(max(auc, 1e-9), 1 - 1e-9)
    low = (
        brentq(compute_variance_excess, 0.0, nearest, xtol=1e-12)
        if compute_variance_excess(nearest) < 0 < compute_variance_excess(0.0)
        else 0.0
    )
    high = (
        brentq(compute_variance_excess, nearest, 1.0, xtol=1e-12)
        if compute_variance_excess(nearest) < 0 < compute_variance_excess(1.0)
        else 1.0
    )
    return Interval(auc, min(float(low), auc), max(float(high), auc))


def _compute_auc_variance(auc: float, positives: int, negatives: int) -> float:
    """Return Hanley and McNeil's variance of an AUC (1982), in the symmetrical form of Newcombe's method 5."""
    others = (positives + negatives) / 2 - 1
    share = others * (1 - auc) / (2 - auc) + others * auc / (1 + auc)
    return auc * (1 - auc) * (1 + share) / (positives * negatives)


def _estimate_precision_variance(hits: Floats, misses: Floats, draws: int, seed: int) -> float:
    """Return the variance of the average precision, with positives and negatives drawn separately."""
    rng = np.random.default_rng(seed)
    if len(hits) > _MAX_STEPS:
        share = (hits + misses).cumsum()
        group = np.minimum((share / share[-1] * _MAX_STEPS).astype(int), _MAX_STEPS - 1)
        hits, misses = np.bincount(group, hits).astype(float), np.bincount(group, misses).astype(float)
    again = [
        rng.multinomial(int(counts.sum()), counts / counts.sum(), size=draws).astype(float) for counts in (hits, misses)
    ]
    return float(_compute_areas(again[0], again[1])[1].var())
