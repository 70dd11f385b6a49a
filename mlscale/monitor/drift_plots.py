"""Plots of a look: the columns that are farthest from their reference, before and now.

The columns of a look as a table and as a document: all that were detected, where a sentence has the farthest one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import convert_to_json
from mlscale.monitor.drift import ColumnDrift
from mlscale.monitor.drift.column_drift import QUALITY
from mlscale.reference.column_sketch import CategorySketch, NumberSketch
from mlscale.report import BarPlot, Series, TableBlock, format_number

_BINS, _PLOTS, _CATEGORIES = 16, 4, 20
_MOST_WHOLE = 1000  # the range of whole numbers that are counts; larger ones are measurements


def plot_drifted_columns(columns: Sequence[ColumnDrift]) -> tuple[BarPlot, ...]:
    """Return histograms of the columns with the largest distance: shares of the reference next to those of the window.

    Args:
        columns: of one look.
    """
    # One plot for a column; finds first: a large distance of few values may be chance.
    shown = [column for column in columns if column.kind not in QUALITY]
    farthest = sorted(shown, key=lambda column: (not column.is_detected, not column.is_significant, -column.distance))
    return tuple(map(_plot_column, farthest[:_PLOTS]))


def _plot_column(column: ColumnDrift) -> BarPlot:
    sketch = column.reference
    if isinstance(sketch, CategorySketch):
        return _plot_categories(column, sketch)
    return _plot_numbers(column, sketch, np.asarray(column.sample, np.float64))


def _plot_numbers(column: ColumnDrift, sketch: NumberSketch, sample: NDArray[np.float64]) -> BarPlot:
    edges = _compute_bin_edges(sketch.values, sample)
    return BarPlot(
        title=f"{column.label}, distance {column.distance:.2f}",
        labels=[format_number(float(edge), 3) for edge in edges[:-1]],
        series=[
            Series("reference", _compute_bin_shares(sketch.values, edges)),
            Series("now", _compute_bin_shares(sample, edges)),
        ],
        x=_name_axis(column.label, sketch.unit),
        y="share of events",
    )


def _name_axis(label: str, unit: str) -> str:
    """Return the name of a column with its unit, unless the name holds it: `Vorlauf (°C)`."""
    return label if not unit or label.endswith((f"({unit})", f"[{unit}]")) else f"{label}, {unit}"


def _plot_categories(column: ColumnDrift, sketch: CategorySketch) -> BarPlot:
    """Plot the categories whose share changed most."""
    counts = Counter([] if column.sample is None else column.sample.tolist())
    # A pair for each category: its share before, and now.
    shares = {
        category: (sketch.counts.get(category, 0) / sketch.known, counts[category] / max(1, counts.total()))
        for category in dict.fromkeys([*sketch.counts, *counts])
    }
    shown = sorted(shares, key=lambda category: -abs(shares[category][1] - shares[category][0]))[:_CATEGORIES]
    # In the order of the reference, so that two pages can be compared.
    shown.sort(key=list(shares).index)
    return BarPlot(
        title=f"{column.label}, distance {column.distance:.2f}",
        labels=shown,
        series=[
            Series(name, [shares[category][side] for category in shown])
            for side, name in enumerate(("reference", "now"))
        ],
        x=column.label,
        y="share of events",
    )


def _compute_bin_edges(reference: NDArray[np.float64], sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return edges of bins over both samples, without a few far outliers, which would leave one bar."""
    values = [side[np.isfinite(side)].astype(np.float64) for side in (reference, sample)]
    ends = [np.quantile(side, (0.005, 0.995)) for side in values if len(side)]
    low, high = (min(end[0] for end in ends), max(end[1] for end in ends)) if ends else (0.0, 1.0)
    low, high = float(low), float(high)
    # Whole numbers, such as counts, have a bar each, or the same number of them in each bar: others would leave gaps.
    if ends and all((side == np.round(side)).all() for side in values) and high - low < _MOST_WHOLE:
        first, width = math.floor(low), max(1, math.ceil((high - low + 1) / _BINS))
        return np.arange(first, math.ceil(high) + width + 1, width, dtype=np.float64)
    return np.linspace(low, high if high > low else low + 1, _BINS + 1)


def _compute_bin_shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> list[float]:
    """Return the share of each bin; values outside count in the outermost bins, NaN in the last one."""
    bins = np.clip(np.searchsorted(edges, values, "right") - 1, 0, len(edges) - 2)
    shares: list[float] = (np.bincount(bins, minlength=len(edges) - 1) / len(values)).tolist()
    return shares


def build_drift_table(columns: Sequence[ColumnDrift], min_distance: float) -> tuple[TableBlock, ...]:
    """Return a table of the results that are significant, the farthest first; none where there are none.

    Args:
        columns: of one look.
        min_distance: from which on a change is worth an alert.
    """
    shown = _select_significant(columns)
    rows = [
        [column.label, column.group, column.format_change(), f"{column.distance:.3f}", _judge(column, min_distance)]
        for column in shown
    ]
    names = ("column", "of", "change", "distance", "")
    return (TableBlock("Changed columns", names, rows),) if rows else ()


def list_changed_columns(columns: Sequence[ColumnDrift], min_distance: float) -> list[dict[str, Any]]:
    """Return a document for each row of the table: its name, change, direction, size, distance and q-value."""
    documents: list[dict[str, Any]] = convert_to_json(
        [
            {
                "name": column.name,
                "kind": column.kind,
                "change": column.format_change(),
                "before": column.before,
                "now": column.now,
                "shift_sigma": column.shift,
                "category": column.category,
                "distance": column.distance,
                "q": column.q,
                "alert": column.is_detected and column.distance >= min_distance,
            }
            for column in _select_significant(columns)
        ]
    )
    return documents


def _select_significant(columns: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    return sorted((column for column in columns if column.is_significant), key=lambda column: -column.distance)


def _judge(column: ColumnDrift, min_distance: float) -> str:
    if column.may_be_cycle:
        return "may be a cycle"
    return "alert" if column.distance >= min_distance else "too small for an alert"
