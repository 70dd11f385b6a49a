"""How well a score tells two classes apart, at every threshold: ROC, precision and recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.intervals import Interval

Floats = NDArray[np.float64]
_MOST_STEPS = 2000
_MOST_POINTS = 200


@dataclass(frozen=True, eq=False)
class Ranking:
    """A score against the truth.

    Attributes:
        auc: area under the ROC curve: the chance that a positive sample has a higher score than a negative one.
        average_precision: mean of the precision at each positive sample (Davis and Goadrich, 2006, without the linear
            interpolation, which is too optimistic).
        false_positive_rate, recall, precision: along falling thresholds, (t,) each, thinned to 200 points.
        threshold: of each point, (t,).
        best_threshold, best_f1: where F1 is largest, and what it is there. Chosen on these samples: an upper bound.
        positives, negatives: samples of each.
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


def ranking(
    scores: NDArray[np.generic],
    truth: NDArray[np.generic],
    *,
    confidence: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Ranking | None:
    """ROC and precision–recall curves with percentile bootstrap intervals, positives and negatives drawn apart.

    For the intervals alone, scores are first put into at most 2,000 steps of equally many samples.

    Args:
        scores: the higher, the more likely positive, (n,).
        truth: whether each is positive, (n,).

    Returns:
        None where there are no positives, or no negatives: no curve is defined.
    """
    values, positive = np.asarray(scores, np.float64), np.asarray(truth, bool)
    known = np.isfinite(values)
    values, positive = values[known], positive[known]
    if not positive.any() or positive.all():
        return None
    steps, place = np.unique(-values, return_inverse=True)
    hits = np.bincount(place[positive], minlength=len(steps)).astype(np.float64)
    misses = np.bincount(place[~positive], minlength=len(steps)).astype(np.float64)
    tp, fp = hits.cumsum(), misses.cumsum()
    precision, recall = tp / (tp + fp), tp / tp[-1]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = int(f1.argmax())
    auc, average = _areas(hits[None], misses[None])
    low, high = _intervals(hits, misses, confidence, draws, seed)
    shown = np.unique(np.linspace(0, len(steps) - 1, _MOST_POINTS).astype(int))
    return Ranking(
        auc=Interval(float(auc[0]), float(low[0]), float(high[0])),
        average_precision=Interval(float(average[0]), float(low[1]), float(high[1])),
        false_positive_rate=fp[shown] / fp[-1],
        recall=recall[shown],
        precision=precision[shown],
        threshold=-steps[shown],
        best_threshold=float(-steps[best]),
        best_f1=float(f1[best]),
        positives=int(tp[-1]),
        negatives=int(fp[-1]),
    )


def _areas(hits: Floats, misses: Floats) -> tuple[Floats, Floats]:
    """AUC and average precision, (b,) each, of positives and negatives at each step, (b, t), highest score first."""
    tp, fp = hits.cumsum(-1), misses.cumsum(-1)
    positives, negatives = tp[:, -1], fp[:, -1]
    # Each negative is beaten by the positives above it, and half by those at its own step.
    auc = (misses * (tp - hits / 2)).sum(-1) / (positives * negatives)
    precision = tp / np.maximum(tp + fp, 1)
    return auc, (precision * hits).sum(-1) / positives


def _intervals(hits: Floats, misses: Floats, confidence: float, draws: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    if len(hits) > _MOST_STEPS:
        share = (hits + misses).cumsum()
        group = np.minimum((share / share[-1] * _MOST_STEPS).astype(int), _MOST_STEPS - 1)
        hits, misses = np.bincount(group, hits).astype(float), np.bincount(group, misses).astype(float)
    again = [rng.multinomial(int(each.sum()), each / each.sum(), size=draws).astype(float) for each in (hits, misses)]
    areas = np.stack(_areas(*again), 1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(areas, [tail, 1 - tail], axis=0)
    return low, high
