"""Plots of a look: the columns that are farthest from their reference, before and now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift import ColumnDrift
from mlscale.report import BarPlot, Series, format_number

_BINS, _PLOTS, _CLASSES = 16, 4, 20


def plot_drifted_columns(columns: Sequence[ColumnDrift], labels: Sequence[str]) -> tuple[BarPlot, ...]:
    """Return histograms of the columns with the largest distance: shares of the reference next to those of the window.

    Args:
        columns: of one look.
        labels: names of the classes by number.
    """
    # Finds first: a large distance of few values may be chance.
    farthest = sorted(columns, key=lambda column: (not column.is_significant, -column.distance))[:_PLOTS]
    return tuple(
        _plot_classes(column, labels) if column.name == "classes" else _plot_numbers(column) for column in farthest
    )


def _plot_numbers(column: ColumnDrift) -> BarPlot:
    edges = _compute_bin_edges(column.reference, column.sample)
    return BarPlot(
        title=f"{column.label}, distance {column.distance:.2f}",
        labels=[format_number(float(edge), 3) for edge in edges[:-1]],
        series=[
            Series("reference", _compute_bin_shares(column.reference, edges)),
            Series("now", _compute_bin_shares(column.sample, edges)),
        ],
        x=column.label,
        y="share of events",
    )


def _plot_classes(column: ColumnDrift, labels: Sequence[str]) -> BarPlot:
    """Plot the classes whose share changed most, in the order of their numbers."""
    both = column.reference / column.reference.sum(), column.sample / column.sample.sum()
    shown = np.sort(np.argsort(-abs(both[0] - both[1])[: len(labels)], kind="stable")[:_CLASSES])
    return BarPlot(
        title=f"predicted classes, distance {column.distance:.2f}",
        labels=[labels[index] for index in shown],
        series=[Series(name, side[shown].tolist()) for name, side in zip(("reference", "now"), both, strict=True)],
        x="class",
        y="share of predictions",
    )


def _compute_bin_edges(reference: NDArray[Any], sample: NDArray[Any]) -> NDArray[np.float64]:
    """Return edges of bins over both samples, without a few far outliers, which would leave one bar."""
    values = [side[np.isfinite(side)].astype(np.float64) for side in (reference, sample)]
    ends = [np.quantile(side, (0.005, 0.995)) for side in values if len(side)]
    low, high = (min(end[0] for end in ends), max(end[1] for end in ends)) if ends else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, _BINS + 1)


def _compute_bin_shares(values: NDArray[Any], edges: NDArray[np.float64]) -> list[float]:
    """Return the share of each bin; values outside count in the outermost bins, NaN in the last one."""
    bins = np.clip(np.searchsorted(edges, values, "right") - 1, 0, len(edges) - 2)
    shares: list[float] = (np.bincount(bins, minlength=len(edges) - 1) / len(values)).tolist()
    return shares
