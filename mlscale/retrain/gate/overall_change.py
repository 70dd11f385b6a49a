"""Compare two models on all samples: the task type's own metric, the test of it, and the samples that changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.retrain.gate.paired_columns import PairedColumns
from mlscale.stats.bootstrap import MIN_SAMPLES, bootstrap_intervals
from mlscale.stats.paired import compare_paired
from mlscale.task_types.paired_metrics import MetricDefinition, PairedStatistics, compute_difference_p
from mlscale.task_types.task_type import TaskType


@dataclass(frozen=True)
class OverallChange:
    """The change from champion to challenger on the same samples.

    Attributes:
        metric: that the task type compares by.
        samples: their number.
        first, second: the metric of each model.
        difference: positive where the challenger is better; a share of the champion's metric where that is no share.
        low: its lower end, one-sided; NaN with too few samples.
        p_better: the probability of such a difference, or a larger one, where the challenger is not better.
        gained, lost: samples that became better, and worse: negative flips.
        needed: the fewest samples, or groups, with which a challenger can be shown to be better.
        groups: the number of groups, such as users, whose samples are compared together; 0 without.
    """

    metric: MetricDefinition
    samples: int
    first: float
    second: float
    difference: float
    low: float
    p_better: float
    gained: int
    lost: int
    needed: int
    groups: int = 0


def compare_overall(
    task_type: TaskType,
    columns: PairedColumns,
    *,
    alpha: float,
    tolerance: float,
    seed: int = 0,
    groups: NDArray[np.float64] | None = None,
) -> OverallChange:
    """Compare two models on all samples. Right and wrong predictions by McNemar's mid-p test and Tango's interval; any
    other metric by a paired bootstrap and a permutation test, numbers also by a test that takes skewness into account.
    Samples of a group are alike: groups are drawn and exchanged as wholes then, of right and wrong predictions, too.

    Args:
        task_type: of both models.
        columns: of both models.
        alpha: 1 - confidence of the lower end.
        tolerance: scores that differ by no more are no flip; see `compute_flip_tolerance`.
        seed: of the draws.
        groups: of the samples, (n,); None if each is one of its own.
    """
    first, second = compute_scores(task_type, columns)
    gained, lost = (
        int((sign * (second - first) > compute_flip_tolerance(task_type, first, tolerance)).sum()) for sign in (1, -1)
    )
    if groups is not None and len(np.unique(groups)) == len(groups):
        groups = None
    if task_type.exact_metric is None:
        paired = task_type.build_paired_statistics(columns.first, columns.second)
        return _compare_metrics(task_type, paired, columns, (gained, lost), alpha, seed, groups)
    before, after = (task_type.mark_correct(side) for side in (columns.first, columns.second))
    # Right and wrong predictions have tests of their own, which need no random draws.
    if groups is None:
        pairs = compare_paired(before, after, confidence=1 - alpha)
        return OverallChange(
            task_type.exact_metric,
            pairs.samples,
            float(before.mean()),
            float(after.mean()),
            pairs.difference,
            pairs.low,
            pairs.p_better,
            pairs.gained,
            pairs.lost,
            # So many gained, and none lost, have a mid-p value of 0.5 ** (n + 1).
            max(1, math.ceil(-math.log2(alpha) - 1 - 1e-9)),
        )
    ones = np.ones(len(before))
    rows = np.stack([before, ones, after, ones], 1).astype(np.float64)
    paired = PairedStatistics(rows, lambda sums: sums[:, :1] / sums[:, 1:], (task_type.exact_metric,))
    return _compare_metrics(task_type, paired, columns, (gained, lost), alpha, seed, groups)


def compute_scores(task_type: TaskType, columns: PairedColumns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of both models, (n,) each; a higher one is better."""
    sign = 1 if task_type.score.higher_is_better else -1
    first, second = (sign * task_type.score_samples(side) for side in (columns.first, columns.second))
    return first, second


def compute_flip_tolerance(task_type: TaskType, first: NDArray[Any], tolerance: float) -> float:
    """Return the change of a score that is no flip: `tolerance` for shares, else so many times the champion's mean."""
    if task_type.score.is_binary:
        return 0.0
    known = abs(first[~np.isnan(first)])
    return tolerance if task_type.score.is_share else tolerance * float(known.mean()) if len(known) else 0.0


def _compare_metrics(
    task_type: TaskType,
    paired: PairedStatistics,
    columns: PairedColumns,
    flips: tuple[int, int],
    alpha: float,
    seed: int,
    groups: NDArray[np.float64] | None,
) -> OverallChange:
    fewest, count = task_type.fewest_compared, 0
    if groups is not None:
        numbers = np.unique(groups, return_inverse=True)[1]
        fewest, count = MIN_SAMPLES, int(numbers.max()) + 1
        paired = replace(paired, rows=np.stack([np.bincount(numbers, column) for column in paired.rows.T], 1))
    metric, width = paired.metrics[0], paired.rows.shape[1] // 2
    sign = 1 if metric.higher_is_better else -1

    def compute_gain(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        first, second = (paired.statistic(sums[:, side])[:, :1] for side in (slice(width), slice(width, None)))
        gain: NDArray[np.float64] = sign * (second - first)
        # Numbers have units: a limit for all models is a share of what the champion has.
        return gain if metric.is_share else gain / np.maximum(abs(first), 1e-300)

    # One-sided: each end of the interval is exceeded with `alpha`.
    interval = bootstrap_intervals(paired.rows, compute_gain, confidence=1 - 2 * alpha, seed=seed)
    p = float(compute_difference_p(paired, fewest, seed)[0])
    sums = paired.rows.sum(0)[None]
    before, after = (float(paired.statistic(sums[:, side])[0, 0]) for side in (slice(width), slice(width, None)))
    difference = float(interval.value[0])
    is_unchanged = bool((paired.rows[:, :width] == paired.rows[:, width:]).all())
    is_certain = len(columns) >= MIN_SAMPLES and (is_unchanged or bool((paired.rows == paired.rows[0]).all()))
    return OverallChange(
        metric,
        len(columns),
        before,
        after,
        difference,
        # Where all draws are equal they have no interval.
        difference if is_certain else float(interval.low[0]),
        # Of a number all of it: rare errors, of which there are too few, make the same model look better every time.
        1.0 if p != p else 1 - p / 2 if difference <= 0 else p / 2 if metric.is_share else p,
        flips[0],
        flips[1],
        MIN_SAMPLES if metric.is_share else fewest,
        count,
    )
