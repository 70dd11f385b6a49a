"""Compare two models on the same samples: report the better one, or that no difference is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.evaluate.metric_statistics import Measure, measures
from mlscale.evaluate.report_wording import Judged, chance, entry, in_numbers, in_percent, in_points, named
from mlscale.evaluate.sample_collector import Gathered
from mlscale.report import Figure, Heading, Table
from mlscale.report.text import percent
from mlscale.stats.bootstrap import bootstrap
from mlscale.stats.discoveries import benjamini_hochberg
from mlscale.stats.intervals import Interval, wilson
from mlscale.stats.paired import mcnemar_exact, score_interval
from mlscale.stats.permutation_test import swap_test

ALPHA = 0.05  # level of the test, and false-discovery rate over classes
_MOST = 50  # rows of the table of classes; the JSON result has all


@dataclass(frozen=True)
class Difference:
    """One metric of both models.

    Attributes:
        measure: the metric.
        first, second: its value for each model.
        difference: first − second, with its interval.
        p: the p-value of the difference, two-sided.
    """

    measure: Measure
    first: float
    second: float
    difference: Interval
    p: float

    def document(self) -> dict[str, Any]:
        """Return the entry of the metric in the JSON result."""
        sides = {"first": self.first, "second": self.second}
        return {"figure": self.measure.name, **sides, "difference": entry(self.difference), "p": self.p}

    @property
    def better(self) -> int:
        """1 if the first model is better, -1 if the second is, 0 if no difference is shown."""
        # `not p <= ALPHA`, as p is NaN where a metric is not defined: then nothing is shown.
        if not self.p <= ALPHA or not self.difference.value:
            return 0
        return 1 if (self.difference.value > 0) == self.measure.higher else -1


def compare(first: Gathered, second: Gathered, names: tuple[str, str], seed: int = 0) -> Judged:
    """Compare two models on the samples that both have, by key. Right and wrong predictions are compared by McNemar's
    exact test and Tango's interval; all other metrics by a permutation test, exact for few samples, and the interval
    of a paired bootstrap.

    Raises:
        MLScaleError: they are of different kinds, share no sample, or differ on the truth.
    """
    ours, theirs = _joined(first, second, names)
    found = _differences(ours, theirs, first.about.kind, seed)
    head = found[0]
    n = len(next(iter(ours.values())))
    # One model may have been measured on more samples than the other; only the shared ones are paired.
    apart = max(len(first), len(second)) - n
    verdict = _verdict(head, names, n)
    # Only a classifier's samples have one class each, and so a recall by class.
    classes = _classes(first, ours, theirs) if first.about.kind == "classification" else None
    worse = [row for row in classes or () if row["q"] <= ALPHA]
    remarks = [verdict]
    if worse:
        told = ", ".join(f"{row['class']} ({in_points(row['interval'])} points)" for row in worse[:3])
        remarks.append(f"shown to differ: {told}")
    if apart:
        remarks.append(f"{apart:,} samples are of one of them only, and do not count")
    metrics: dict[str, float] = {"paired_samples": n}
    for each in found:
        name = each.measure.name
        metrics |= {f"against_{name}": each.second, **named(f"{name}_difference", each.difference)}
        metrics[f"{name}_difference_p"] = each.p
    return Judged(
        metrics=metrics,
        headline=verdict,
        remarks=remarks,
        figures=_figures(found, names, classes),
        details={
            "against": {
                "name": names[1],
                "verdict": verdict,
                "better": {1: names[0], -1: names[1], 0: None}[head.better],
                "differences": [each.document() for each in found],
                **({"classes": [{**row, "interval": entry(row["interval"])} for row in classes]} if classes else {}),
            }
        },
    )  # fmt: skip


Columns = Mapping[str, NDArray[Any]]


def _joined(first: Gathered, second: Gathered, names: tuple[str, str]) -> tuple[Columns, Columns]:
    """Return the columns of the samples that both models have, in the same order."""
    if first.about.kind != second.about.kind:
        raise MLScaleError(
            f"{names[0]} is a model of {first.about.kind}, {names[1]} one of {second.about.kind}",
            where="against",
            fix="against=<a model of the same task>",
        )
    rows = np.arange(len(first)), np.arange(len(second))
    if first.keys != second.keys:
        there = {key: row for row, key in enumerate(second.keys)}
        both = [(row, there[key]) for row, key in enumerate(first.keys) if key in there]
        if not both:
            raise MLScaleError(
                "the two models were measured on different samples",
                where="against",
                why=f"no key is of both: {first.keys[0]!r} and {second.keys[0]!r} are the first",
                fix="type the data for both: data=… with data.val=…",
            )
        rows = tuple(np.array(each) for each in zip(*both, strict=True))  # type: ignore[assignment]
    ours, theirs = ({k: v[r] for k, v in g.columns.items()} for g, r in zip((first, second), rows, strict=True))
    # The column of the truth depends on the kind: masks have pixel counts ('true'), sequences their length ('tokens').
    for name in ("truth", "true", "tokens"):
        if name in ours and (ours[name].shape != theirs[name].shape or not np.array_equal(ours[name], theirs[name])):
            raise MLScaleError(
                "the two models disagree on what is right",
                where="against",
                why="the same samples have other targets: classes are numbered differently, or labels have changed",
                fix="type the data for both: data=… with data.train=… and data.val=…",
            )
    return ours, theirs


def _differences(ours: Columns, theirs: Columns, kind: str, seed: int) -> list[Difference]:
    """Return the differences of all metrics; the first one decides."""
    found = []
    if kind in ("classification", "multilabel"):
        mine, its = _right(ours, kind), _right(theirs, kind)
        gained, lost, n = int((mine & ~its).sum()), int((its & ~mine).sum()), len(mine)
        low, high = score_interval(gained, lost, n, 0.975)  # one-sided ends: together 95 %
        measure = Measure("accuracy" if kind == "classification" else "exact_match", True, True)
        difference = Interval((gained - lost) / n, low, high)
        p = mcnemar_exact(gained, lost)
        found.append(Difference(measure, float(mine.mean()), float(its.mean()), difference, p))
    rows, statistic, of = measures(ours, theirs, kind)
    # Rows have both models side by side, so that a draw takes both results of a sample: a paired bootstrap.
    width = rows.shape[1] // 2
    both = bootstrap(rows, lambda s: statistic(s[:, :width]) - statistic(s[:, width:]), seed=seed)
    chances = swap_test(rows[:, :width], rows[:, width:], statistic, seed=seed)
    sums = rows.sum(0)[None]
    each_side = statistic(sums[:, :width])[0], statistic(sums[:, width:])[0]
    for place, measure in enumerate(of):
        values = float(each_side[0][place]), float(each_side[1][place])
        found.append(Difference(measure, *values, both[place], float(chances[place])))
    return found


def _right(columns: Columns, kind: str) -> NDArray[np.bool_]:
    """Return whether each sample is predicted correctly, with all of its labels, bool (n,)."""
    same: NDArray[np.bool_] = columns["truth"] == columns["predicted"]
    return same if kind == "classification" else np.asarray(same.all(1))


def _verdict(head: Difference, names: tuple[str, str], n: int) -> str:
    measure = head.measure
    values = [
        in_percent(Interval(v, float("nan"), float("nan"))) if measure.share else f"{v:.4g}"
        for v in (head.first, head.second)
    ]
    gap = f"{in_points(head.difference)} points" if measure.share else in_numbers(head.difference)
    test = "McNemar, exact" if measure.name in ("accuracy", "exact_match") else "paired permutation"
    figures = (
        f"{measure.said} {values[0]} against {values[1]}, difference {gap}, p {chance(head.p)} ({test}, {n:,} samples)"
    )
    if not head.better:
        return f"no difference is shown between {names[0]} and {names[1]}: {figures}"
    better, other = names if head.better > 0 else names[::-1]
    return f"{better} is better than {other}: {figures}"  # fmt: skip


def _classes(first: Gathered, ours: Columns, theirs: Columns) -> list[dict[str, Any]]:
    """Return the recall of each class in both models, the largest loss first."""
    rows: list[dict[str, Any]] = []
    for number in np.unique(ours["truth"]).tolist():
        mask = ours["truth"] == number
        sides = ours["predicted"][mask] == number, theirs["predicted"][mask] == number
        gained, lost, n = int((sides[0] & ~sides[1]).sum()), int((sides[1] & ~sides[0]).sum()), int(mask.sum())
        low, high = score_interval(gained, lost, n, 0.975)
        rows.append(
            {
                "class": first.about.label(number),
                "support": n,
                "recall": float(sides[0].mean()),
                "against_recall": float(sides[1].mean()),
                "interval": Interval((gained - lost) / n, low, high),
                "p": mcnemar_exact(gained, lost),
            }
        )
    # With many classes some differ by chance: q controls the false-discovery rate over all of them.
    for row, q in zip(rows, benjamini_hochberg([row["p"] for row in rows], ALPHA).q, strict=True):
        row["q"] = q
    rows.sort(key=lambda row: float(row["interval"].value))
    return rows


def _figures(found: Sequence[Difference], names: tuple[str, str], classes: list[dict[str, Any]] | None) -> list[Figure]:
    def shown(each: Difference, value: float) -> str:
        return percent(value, 1, unit=" %") if each.measure.share else f"{value:.4g}"

    rows = [
        (
            each.measure.said,
            shown(each, each.first),
            shown(each, each.second),
            in_points(each.difference) if each.measure.share else in_numbers(each.difference),
            chance(each.p),
            {1: "this one", -1: "the other", 0: "not shown"}[each.better],
        )
        for each in found
    ]
    parts: list[Figure] = [
        Heading("Beside the other model", f"This one: {names[0]}; the other: {names[1]}; on the same samples."),
        Table("Both models", ("figure", "this one", "the other", "difference", "p", "better"), rows),
    ]
    if classes:
        lines = [
            (
                row["class"],
                f"{row['support']:,}",
                in_percent(wilson(round(row["recall"] * row["support"]), row["support"])),
                in_percent(wilson(round(row["against_recall"] * row["support"]), row["support"])),
                in_points(row["interval"]),
                chance(row["q"]),
            )
            for row in classes[:_MOST]
        ]
        columns = ("class", "samples", "this one", "the other", "difference", "q")
        note = "Recall, the largest loss first; q: the false-discovery rate of all classes together."
        marked = [place for place, row in enumerate(classes[:_MOST]) if row["q"] <= ALPHA and row["interval"].value < 0]
        parts.append(Table("Class by class", columns, lines, note, marked))
    return parts
