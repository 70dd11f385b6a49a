"""ROC and precision–recall curves over all thresholds, for two classes or for each label."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlscale.report import Figure, Heading, LinePlot, Series
from mlscale.stats.ranking import Ranking, compute_ranking
from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.report_wording import EvaluationReport, expand_interval


def build_threshold_report(gathered: CollectedSamples, seed: int = 0) -> EvaluationReport | None:
    """Return AUC, average precision and the threshold of the best F1 of the positive class; None if it is alone."""
    score, is_second, positive = gathered.columns["score"], gathered.columns["truth"] == 1, gathered.task_info.positive
    if positive is None:
        positive = int(2 * is_second.sum() <= len(is_second))
    curve = compute_ranking(score if positive else 1 - score, is_second == bool(positive), seed=seed)
    if curve is None:
        return None
    name = gathered.task_info.get_class_name(positive)
    return EvaluationReport(
        metrics={
            **expand_interval("auc", curve.auc),
            **expand_interval("average_precision", curve.average_precision),
            "best_f1": curve.best_f1,
            "best_f1_threshold": curve.best_threshold,
        },
        headline="",
        blocks=[
            Heading(
                "Threshold",
                f"'{name}' is the positive class. F1 is largest, {curve.best_f1:.3f}, where its probability is at "
                f"least {curve.best_threshold:.3f}; chosen on these samples, so another set gives less.",
            ),
            *build_threshold_plots([(name, curve)]),
        ],
    )


def build_threshold_plots(rankings: Sequence[tuple[str, Ranking]]) -> list[Figure]:
    """Return the ROC and the precision–recall plot of at most three scores."""
    shown = rankings[:3]  # more lines are hard to distinguish
    chance = Series("by chance", [0.0, 1.0], [0.0, 1.0])
    roc = [
        Series(
            f"{name}, AUC {_format_score(curve.auc.value)}",
            [0.0, *curve.recall.tolist()],
            [0.0, *_get_false_positive_rates(curve)],
        )
        for name, curve in shown
    ]
    both = [
        Series(
            f"{name}, AP {_format_score(curve.average_precision.value)}",
            curve.precision.tolist(),
            _make_strictly_rising(curve.recall.tolist()),
        )
        for name, curve in shown
    ]
    return [
        LinePlot("ROC", [*roc, chance], "false positive rate", "recall", zero=True),
        LinePlot("Precision and recall", both, "recall", "precision", zero=True),
    ]


def _get_false_positive_rates(curve: Ranking) -> list[float]:
    return _make_strictly_rising(curve.false_positive_rate.tolist())


def _make_strictly_rising(values: Sequence[float]) -> list[float]:
    """Return values that rise strictly, so that points of equal x keep their order when a plot sorts them."""
    positions: list[float] = []
    for value in values:
        # The next float up: too small a step to be seen in the plot.
        positions.append(max(value, math.nextafter(positions[-1], math.inf)) if positions else value)
    return positions


def _format_score(value: float) -> str:
    return f"{value:.3f}"
