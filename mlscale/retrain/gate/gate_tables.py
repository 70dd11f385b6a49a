"""The classes and slices of a comparison, as a table of the page and as entries of the JSON result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mlscale.report import Figure, Heading, TableBlock
from mlscale.report.text import format_percent
from mlscale.retrain.gate.class_comparison import ClassComparison
from mlscale.retrain.gate.group_changes import CLASS, WORSE, GroupChange

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
