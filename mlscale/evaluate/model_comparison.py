"""Compare two models on the same samples: report the better one, or that no difference is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlscale.errors import MLScaleError
from mlscale.evaluate.sample_collector import EvaluatedSamples
from mlscale.report import Figure, Heading, TableBlock
from mlscale.report.text import format_percent
from mlscale.stats.bootstrap import bootstrap_intervals
from mlscale.stats.discoveries import apply_benjamini_hochberg
from mlscale.stats.intervals import Interval, compute_wilson_interval
from mlscale.stats.paired import compute_mcnemar_exact_p, compute_score_interval
from mlscale.task_types.collected_samples import Columns
from mlscale.task_types.paired_metrics import MetricDefinition, compute_difference_p
from mlscale.task_types.report_wording import (
    EvaluationReport,
    expand_interval,
    format_number_interval,
    format_p_value,
    format_point_difference,
    format_share_interval,
    serialize_interval,
)
from mlscale.task_types.task_type import TaskType

ALPHA = 0.05  # level of the test, and false-discovery rate over classes
_MAX_TABLE_ROWS = 50  # rows of the table of classes; the JSON result has all


@dataclass(frozen=True)
class MetricDifference:
    """One metric of both models.

    Attributes:
        metric: the metric.
        first, second: its value for each model.
        difference: first − second, with its interval.
        p: the p-value of the difference, two-sided.
    """

    metric: MetricDefinition
    first: float
    second: float
    difference: Interval
    p: float

    def build_difference_entry(self) -> dict[str, Any]:
        """Return the entry of the metric in the JSON result."""
        sides = {"first": self.first, "second": self.second}
        return {"figure": self.metric.name, **sides, "difference": serialize_interval(self.difference), "p": self.p}

    @property
    def better(self) -> int:
        """1 if the first model is better, -1 if the second is, 0 if no difference is shown."""
        # `not p <= ALPHA`, as p is NaN where a metric is not defined: then nothing is shown.
        if not self.p <= ALPHA or not self.difference.value:
            return 0
        return 1 if (self.difference.value > 0) == self.metric.higher_is_better else -1


def compare_models(
    first: EvaluatedSamples, second: EvaluatedSamples, names: tuple[str, str], seed: int = 0
) -> EvaluationReport:
    """Compare two models on the samples that both have, by key. Right and wrong predictions are compared by McNemar's
    exact test and Tango's interval; all other metrics by a permutation test and the interval of a paired bootstrap,
    numbers such as an RMSE also by a test that takes their skewness into account, and not at all with few samples.

    Raises:
        MLScaleError: they are of different types, share no sample, or differ on the truth.
    """
    first_columns, second_columns = _align_columns(first, second, names)
    task_type = first.task_type
    differences = _compute_differences(first_columns, second_columns, task_type, seed)
    head = differences[0]
    n = len(next(iter(first_columns.values())))
    # One model may have been measured on more samples than the other; only the shared ones are paired.
    unpaired = max(len(first), len(second)) - n
    verdict = _format_verdict(head, names, n, task_type)
    # Only a classifier's samples have one class each, and so a recall by class.
    classes = _compare_class_recalls(first, first_columns, second_columns) if task_type.is_one_class else None
    worse = [row for row in classes or () if row["q"] <= ALPHA]
    remarks = [verdict]
    if worse:
        examples = ", ".join(f"{row['class']} ({format_point_difference(row['interval'])} points)" for row in worse[:3])
        remarks.append(f"shown to differ: {examples}")
    if unpaired:
        remarks.append(f"{unpaired:,} samples are of one of them only, and do not count")
    metrics: dict[str, float] = {"paired_samples": n}
    for difference in differences:
        name = difference.metric.name
        metrics |= {
            f"against_{name}": difference.second,
            **expand_interval(f"{name}_difference", difference.difference),
        }
        metrics[f"{name}_difference_p"] = difference.p
    class_entries = [{**row, "interval": serialize_interval(row["interval"])} for row in classes or ()]
    return EvaluationReport(
        metrics=metrics,
        headline=verdict,
        remarks=remarks,
        blocks=_build_comparison_blocks(differences, names, classes),
        details={
            "against": {
                "name": names[1],
                "verdict": verdict,
                "better": {1: names[0], -1: names[1], 0: None}[head.better],
                "differences": [difference.build_difference_entry() for difference in differences],
                **({"classes": class_entries} if class_entries else {}),
            }
        },
    )  # fmt: skip


def _align_columns(
    first: EvaluatedSamples, second: EvaluatedSamples, names: tuple[str, str]
) -> tuple[Columns, Columns]:
    """Return the columns of the samples that both models have, in the same order."""
    kinds = [gathered.task_type.name for gathered in (first, second)]
    if kinds[0] != kinds[1]:
        raise MLScaleError(
            f"{names[0]} is a model of {kinds[0]}, {names[1]} one of {kinds[1]}",
            where="against",
            fix="against=<a model of the same task>",
        )
    rows = np.arange(len(first)), np.arange(len(second))
    if first.keys != second.keys:
        second_rows = {key: row for row, key in enumerate(second.keys)}
        both = [(row, second_rows[key]) for row, key in enumerate(first.keys) if key in second_rows]
        if not both:
            raise MLScaleError(
                "the two models were measured on different samples",
                where="against",
                why=f"no key is of both: {first.keys[0]!r} and {second.keys[0]!r} are the first",
                fix="data=<an option> data.val=<samples>, the data for both",
            )
        rows = tuple(np.array(indices) for indices in zip(*both, strict=True))  # type: ignore[assignment]
    first_columns, second_columns = (
        {k: v[r] for k, v in g.columns.items()} for g, r in zip((first, second), rows, strict=True)
    )
    # The column of the truth depends on the type: masks have pixel counts ('true'), sequences their length ('tokens').
    truths = [columns.get(first.task_type.truth_column) for columns in (first_columns, second_columns)]
    if truths[0] is not None and (truths[1] is None or not np.array_equal(truths[0], truths[1])):
        raise MLScaleError(
            "the two models disagree on what is right",
            where="against",
            why="the same samples have other targets: classes are numbered differently, or labels have changed",
            fix="data=<an option> data.train=<samples> data.val=<samples>, the data for both",
        )
    return first_columns, second_columns


def _compute_differences(first: Columns, second: Columns, task_type: TaskType, seed: int) -> list[MetricDifference]:
    """Return the differences of all metrics; the first one decides."""
    differences = []
    if task_type.exact_metric is not None:
        first_correct, second_correct = task_type.mark_correct(first), task_type.mark_correct(second)
        gained, lost, n = (
            int((first_correct & ~second_correct).sum()),
            int((second_correct & ~first_correct).sum()),
            len(first_correct),
        )
        low, high = compute_score_interval(gained, lost, n, 0.975)  # one-sided ends: together 95 %
        difference = Interval((gained - lost) / n, low, high)
        p = compute_mcnemar_exact_p(gained, lost)
        differences.append(
            MetricDifference(
                task_type.exact_metric, float(first_correct.mean()), float(second_correct.mean()), difference, p
            )
        )
    paired = task_type.build_paired_statistics(first, second)
    rows, statistic = paired.rows, paired.statistic
    # Rows have both models side by side, so that a draw takes both results of a sample: a paired bootstrap.
    width = rows.shape[1] // 2
    both = bootstrap_intervals(rows, lambda s: statistic(s[:, :width]) - statistic(s[:, width:]), seed=seed)
    p_values = compute_difference_p(paired, task_type.fewest_compared, seed)
    sums = rows.sum(0)[None]
    each_side = statistic(sums[:, :width])[0], statistic(sums[:, width:])[0]
    for index, metric in enumerate(paired.metrics):
        values = float(each_side[0][index]), float(each_side[1][index])
        differences.append(MetricDifference(metric, *values, both[index], float(p_values[index])))
    return differences


def _format_verdict(head: MetricDifference, names: tuple[str, str], n: int, task_type: TaskType) -> str:
    metric = head.metric
    values = [
        format_share_interval(Interval(v, float("nan"), float("nan"))) if metric.is_share else f"{v:.4g}"
        for v in (head.first, head.second)
    ]
    gap = (
        f"{format_point_difference(head.difference)} points"
        if metric.is_share
        else format_number_interval(head.difference)
    )
    test = "McNemar, exact" if task_type.exact_metric else "paired permutation"
    difference = f"{metric.display_name} {values[0]} against {values[1]}, difference {gap}"
    if not metric.is_share and n < task_type.fewest_compared:
        return (
            f"undecided between {names[0]} and {names[1]}: {n:,} samples are too few, at least "
            f"{task_type.fewest_compared} are needed, as rare large values may not be among them: {difference}"
        )
    comparison = f"{difference}, p {format_p_value(head.p)} ({test}, {n:,} samples)"
    if not head.better:
        return f"no difference is shown between {names[0]} and {names[1]}: {comparison}"
    better, other = names if head.better > 0 else names[::-1]
    return f"{better} is better than {other}: {comparison}"  # fmt: skip


def _compare_class_recalls(
    first: EvaluatedSamples, first_columns: Columns, second_columns: Columns
) -> list[dict[str, Any]]:
    """Return the recall of each class in both models, the largest loss first."""
    rows: list[dict[str, Any]] = []
    for number in np.unique(first_columns["truth"]).tolist():
        mask = first_columns["truth"] == number
        sides = first_columns["predicted"][mask] == number, second_columns["predicted"][mask] == number
        gained, lost, n = int((sides[0] & ~sides[1]).sum()), int((sides[1] & ~sides[0]).sum()), int(mask.sum())
        low, high = compute_score_interval(gained, lost, n, 0.975)
        rows.append(
            {
                "class": first.task_info.get_class_name(number),
                "support": n,
                "recall": float(sides[0].mean()),
                "against_recall": float(sides[1].mean()),
                "interval": Interval((gained - lost) / n, low, high),
                "p": compute_mcnemar_exact_p(gained, lost),
            }
        )
    # With many classes some differ by chance: q controls the false-discovery rate over all of them.
    for row, q in zip(rows, apply_benjamini_hochberg([row["p"] for row in rows], ALPHA).q, strict=True):
        row["q"] = q
    rows.sort(key=lambda row: float(row["interval"].value))
    return rows


def _build_comparison_blocks(
    differences: Sequence[MetricDifference], names: tuple[str, str], classes: list[dict[str, Any]] | None
) -> list[Figure]:
    def format_metric_value(difference: MetricDifference, value: float) -> str:
        return format_percent(value, 1, unit=" %") if difference.metric.is_share else f"{value:.4g}"

    rows = [
        (
            difference.metric.display_name,
            format_metric_value(difference, difference.first),
            format_metric_value(difference, difference.second),
            format_point_difference(difference.difference)
            if difference.metric.is_share
            else format_number_interval(difference.difference),
            format_p_value(difference.p),
            {1: "this one", -1: "the other", 0: "not shown"}[difference.better],
        )
        for difference in differences
    ]
    parts: list[Figure] = [
        Heading("Compared with the other model", f"This one: {names[0]}; the other: {names[1]}; on the same samples."),
        TableBlock("Both models", ("figure", "this one", "the other", "difference", "p", "better"), rows),
    ]
    if classes:
        lines = [
            (
                row["class"],
                f"{row['support']:,}",
                format_share_interval(compute_wilson_interval(round(row["recall"] * row["support"]), row["support"])),
                format_share_interval(
                    compute_wilson_interval(round(row["against_recall"] * row["support"]), row["support"])
                ),
                format_point_difference(row["interval"]),
                format_p_value(row["q"]),
            )
            for row in classes[:_MAX_TABLE_ROWS]
        ]
        columns = ("class", "samples", "this one", "the other", "difference", "q")
        note = "Recall, the largest loss first; q: the false-discovery rate of all classes together."
        marked = [
            index
            for index, row in enumerate(classes[:_MAX_TABLE_ROWS])
            if row["q"] <= ALPHA and row["interval"].value < 0
        ]
        parts.append(TableBlock("Class by class", columns, lines, note, marked))
    return parts
