"""The report of a retraining cycle.

The classes and slices of a comparison, as a table of the page and as entries of the JSON result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlscale.report import BarPlot, Figure, Heading, Result, Series, TableBlock
from mlscale.report.text import format_percent
from mlscale.retrain.gate.class_comparison import ClassComparison
from mlscale.retrain.gate.group_changes import CLASS, WORSE, GroupChange

if TYPE_CHECKING:
    from mlscale.retrain.gate.promotion_decision import GateDecision
    from mlscale.retrain.journal import RetrainingCycle, RetrainingJournal
    from mlscale.retrain.labelled_window import LabelledWindow
    from mlscale.retrain.window_samples import NewCategories

_SHOWN = 5
"""New categories that a sentence names."""


def explain_too_few(needed: int, model: str, window: LabelledWindow, *, needs_label: bool = True) -> str:
    """Return the reason why nothing is trained, and the fix."""
    what, labels = ("labelled events", ", send labels to POST /labels") if needs_label else ("events", "")
    # Labelled events that can't be used, counted by reason: `window.labelled` alone would not explain the shortage.
    left_out = ", ".join(f"{count:,} {why}" for why, count in window.left_out.items())
    return (
        f"{model} needs {needed:,} {what} with samples; there are {len(window):,}"
        + (f" ({window.labelled:,} {what}; left out: {left_out})" if left_out else "")
        + f"; serve with sample_share=1{labels}"
    )


def describe_window(window: LabelledWindow) -> str:
    """Return a text with the size of a window and of its two sides."""
    held_out = int(window.held_out.sum())
    sizes = f"{len(window):,} samples, {len(window) - held_out:,} to train on, {held_out:,} held out"
    new = describe_new_categories(window.new_categories)
    return f"{sizes}; {new}" if new else sizes


def describe_new_categories(counts: NewCategories) -> str:
    """Return a text with the categories that the model does not know, the most frequent first; '' for none."""
    counted = sorted(((-n, name, value) for name, values in counts.items() for value, n in values.items()))
    shown = ", ".join(f"{name} {value!r} ({-n:,} samples)" for n, name, value in counted[:_SHOWN])
    more = f" and {len(counted) - _SHOWN} more" if len(counted) > _SHOWN else ""
    return f"new categories, which neither model knows: {shown}{more}" if counted else ""


def build_retrain_result(
    cycle: RetrainingCycle,
    judged: GateDecision | None,
    journal: RetrainingJournal,
    seconds: float,
    overrides: list[str],
) -> Result:
    """Return the result of a cycle that has ended.

    Args:
        cycle: with its decision.
        judged: the comparison; None where it came to none.
        journal: that it is recorded in.
        seconds: of the cycle.
        overrides: as typed.
    """
    from mlscale.retrain.journal import PROMOTED

    metrics = cycle.figures
    sentence = f"{cycle.challenger or cycle.champion} {cycle.decision}: {cycle.reason}"
    # A cycle without a comparison (too few samples, a refused export) has no metrics.
    if judged is not None:
        sentence += f". {_describe_comparison(cycle, judged)}"
    if new := describe_new_categories(cycle.window.get("new_categories", {})):
        sentence += f"; {new}"
    counts = {f"window_{name}": cycle.window[name] for name in ("labelled", "train", "held_out")}
    # `window_samples` of a comparison are the held-out ones that it was made on, next to the metrics of them.
    counts["window_total"] = cycle.window["samples"]
    made = {"run": cycle.run["path"]} if cycle.run else {}
    return Result(
        command="retrain",
        # A rejected challenger is not an error, but exit code 4: scripts see that the champion stayed.
        ok=cycle.decision == PROMOTED,
        sentence=sentence,
        metrics={**metrics, **counts, "time_s": seconds},
        artifacts={**made, "journal": str(journal.path)},
        overrides=overrides,
        figures=(*_plot_metric(cycle, judged), *build_class_blocks(judged.classes, is_share=judged.metric.is_share))
        if judged is not None
        else (),
        details={"classes": entries} if judged is not None and (entries := build_class_entries(judged.classes)) else {},
    )


def _describe_comparison(cycle: RetrainingCycle, judged: GateDecision) -> str:
    metrics, name = judged.metrics, judged.metric.name
    values = [
        f"{metrics[f'{who}_window_{name}']:.2%}" if judged.metric.is_share else f"{metrics[f'{who}_window_{name}']:.4g}"
        for who in ("challenger", "champion")
    ]
    parts = [
        f"Held-out {judged.metric.display_name} {values[0]} against {values[1]} of {cycle.champion} "
        f"(p {metrics['window_p_better']:.2g})"
    ]
    if "original_difference" in metrics:
        low = metrics.get("original_difference_low")
        parts.append(
            f"on the original data {judged.metric.describe_difference(metrics['original_difference'])}"
            + (f", at worst {judged.metric.describe_difference(low)}" if low is not None else "")
            + f", {metrics['original_negative_flips']:,} negative flips"
        )
    return "; ".join([*parts, f"CPU time {metrics['latency_ratio']:.2f}×"])


def _plot_metric(cycle: RetrainingCycle, judged: GateDecision) -> tuple[BarPlot, ...]:
    """Return the plot of both models on the sets of samples that they were compared on."""
    models = (("champion", cycle.champion), ("challenger", str(cycle.challenger)))
    name, shown = judged.metric.name, judged.metric.display_name
    parts = [part for part in ("window", "original") if f"champion_{part}_{name}" in judged.metrics]
    series = [Series(model, [judged.metrics[f"{who}_{part}_{name}"] for part in parts]) for who, model in models]
    labels = [{"window": "held-out window", "original": "original data"}[part] for part in parts]
    title = f"{shown[0].upper()}{shown[1:]} of champion and challenger, on the same samples"
    return (BarPlot(title, labels, series, "samples", shown),)


_MAX_TABLE_ROWS = 50  # the JSON result has all
_MODELS = "champion → challenger"


def build_class_entries(classes: ClassComparison) -> list[dict[str, Any]]:
    """Return the entry of each class and slice in the JSON result, in the order of the original data."""
    names = {change.name for change in classes.original if change.family == CLASS}
    window = {change.name: change for change in classes.window}
    # A class that the original data lacks, or that is declared relabelled, is seen in the window alone.
    alone = [(None, change) for change in classes.window if change.name not in names]
    pairs = [(change, window.get(change.name) if change.family == CLASS else None) for change in classes.original]
    entries = []
    for original, seen in (*pairs, *alone):
        change = original or seen
        assert change is not None
        entry: dict[str, Any] = {"family": change.family, "name": change.name}
        if original is not None:
            # JSON has no NaN: null where the samples are too few for an interval.
            low = original.low if math.isfinite(original.low) else None
            tested = {"low": low, "p": original.p, "needs_proof": original.is_proved, "status": original.status}
            entry["original"] = {**_build_sides(original), **tested}
        if seen is not None:
            entry["window"] = _build_sides(seen)
        if change.family == CLASS and (labels := classes.relabelled.get(change.name)) is not None:
            entry["relabelled"] = {"label": labels.label, "count": labels.count, "samples": labels.samples}
        entries.append(entry)
    return entries


def build_class_blocks(classes: ClassComparison, *, is_share: bool) -> list[Figure]:
    """Return the tables of classes, or of targets, and of slices; empty where there are none.

    Args:
        classes: the comparison.
        is_share: scores are shares, shown in percent.
    """
    entries = build_class_entries(classes)
    # A single target is the whole model, whose scores are shown already; unless the gate objects to it.
    if not entries or (not is_share and len(entries) == 1 and not _is_worse(entries[0])):
        return []
    entries.sort(key=_measure_loss)
    shown = entries[:_MAX_TABLE_ROWS]
    kind = "class" if is_share else "target"
    flips = (
        "Negative flips were right before and are wrong now; of a share, such as IoU, worse by over gate.tolerance."
        if is_share
        else "Scores are mean errors; a negative flip is a sample whose error has grown by more than gate.tolerance."
    )
    note = (
        f"The largest loss first. {flips} "
        f"A {kind} with enough samples must be proved not worse; a smaller one is worse where it is shown to be."
    )
    if len(entries) > len(shown):
        note += f" {len(entries) - len(shown):,} more are in the JSON result."
    # Both models in one column: eleven columns were wider than the page.
    columns: tuple[str, ...] = (kind, "samples", _MODELS, "negative flips", "at worst", "decision",
               "window: samples", f"window: {_MODELS}", "window: labelled as")  # fmt: skip
    rows = [_format_row(entry, is_share) for entry in shown]
    # The last column is empty where the window contradicts no class, and the page is not wide.
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    marked = [row for row, entry in enumerate(shown) if _is_worse(entry) or "relabelled" in entry]
    plural = "Classes" if is_share else "Targets"
    return [Heading(f"{kind.capitalize()} by {kind}"), TableBlock(f"{plural} and slices", columns, rows, note, marked)]


def _is_worse(entry: dict[str, Any]) -> bool:
    return bool(entry.get("original", {}).get("status") == WORSE)


def _build_sides(change: GroupChange) -> dict[str, Any]:
    return {
        "samples": change.samples,
        "champion": change.first,
        "challenger": change.second,
        "negative_flips": change.lost,
        "positive_flips": change.gained,
    }


def _measure_loss(entry: dict[str, Any]) -> float:
    # The original data first: only there is a loss tested; the window has the scores alone.
    part = entry.get("original") or entry["window"]
    return float(part["challenger"] - part["champion"])


def _format_row(entry: dict[str, Any], is_share: bool) -> Sequence[str]:
    name = entry["name"] if entry["family"] == CLASS else f"{entry['family']}: {entry['name']}"
    original, window = entry.get("original"), entry.get("window")
    before = ["–"] * 5
    if original is not None:
        low = original["low"]
        before = [
            f"{original['samples']:,}",
            _format_scores(original, is_share),
            f"{original['negative_flips']:,}",
            "–" if low is None else f"{100 * low:+.1f} %",
            original["status"],
        ]
    now = ["–"] * 2 if window is None else [f"{window['samples']:,}", _format_scores(window, is_share)]
    labels = entry.get("relabelled")
    other = f"{labels['label']} ({labels['count']:,} of {labels['samples']:,})" if labels else ""
    return (name, *before, *now, other)


def _format_scores(sides: Mapping[str, Any], is_share: bool) -> str:
    # Scores are higher where they are better: an error has a minus, which is not shown.
    values = (sides[side] for side in ("champion", "challenger"))
    # No blank before %: on a line of its own it would be read as another number.
    return " → ".join(format_percent(value, 1, unit="") if is_share else f"{abs(value):.4g}" for value in values) + (
        "%" if is_share else ""
    )
