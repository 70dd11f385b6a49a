"""Detects drift of inputs and predictions: every column is compared with the reference, at one false-discovery rate.

With many events a test alone finds differences that do not matter; with few events a distance alone finds differences
by chance. A column has drifted where the test finds a difference and the distance is large.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.monitor.baseline import Baseline
from mlscale.monitor.event_window import EventWindow
from mlscale.report import format_number
from mlscale.report.text import format_percent
from mlscale.stats.chi2 import run_chi2_test
from mlscale.stats.discoveries import apply_benjamini_hochberg
from mlscale.stats.ks import run_ks_test

_GRID = 1e-4  # of a confidence: another CPU computes the last digits differently, and 0.9999999 is no less sure than 1


@dataclass(frozen=True, eq=False)
class ColumnDrift:
    """One column of the window, compared with the reference.

    Attributes:
        name: in metrics: `input_mean_0`, `input_std_0`, `confidence`, `classes`.
        label: its name in sentences.
        group: inputs or predictions.
        before, now: medians; of classes, the share of the class that changed most.
        distance: 0 to 1: of numbers the largest difference of the distribution functions (Kolmogorov–Smirnov), of
            classes the share of predictions that went elsewhere (total variation).
        p: of that distance, or a larger one, by chance.
        q: the smallest false-discovery rate, over all columns, at which it is a find.
        is_significant: True if it is significant at the requested rate.
        reference, sample: the values that were compared; of classes, their counts.
    """

    name: str
    label: str
    group: str
    before: float
    now: float
    distance: float
    p: float
    reference: NDArray[Any] = field(repr=False)
    sample: NDArray[Any] = field(repr=False)
    q: float = math.nan
    is_significant: bool = False

    def format_change(self) -> str:
        """Return the change in words: mean brightness 78.2 → 140, q < 1e-9."""
        classes = self.name == "classes"
        before, now = (
            format_percent(value, 0, unit=" %") if classes else format_number(value, 3)
            for value in (self.before, self.now)
        )
        return f"{self.label} {before} → {now}, q {_format_q_value(self.q)}"


def detect_drift(baseline: Baseline, window: EventWindow, fdr: float) -> tuple[ColumnDrift, ...]:
    """Compare every column of the window with the baseline, by Benjamini and Hochberg's procedure over all of them.

    Args:
        window: with at least one answered event.
        fdr: the highest expected share of false finds; where nothing has changed, the chance of any find.

    Raises:
        MLScaleError: the events have other channels than the baseline.
    """
    channels = window.input_mean.shape[1]
    if channels != baseline.channels or window.input_std.shape[1] != channels:
        raise MLScaleError(
            f"the events of {baseline.version} have {channels} channel(s), its reference profile {baseline.channels}",
            where="events",
            why="they are not of this model",
            fix="events=<the folder that its server writes to>",
        )
    columns = [
        *_compare_inputs(baseline, window),
        _compare_confidence(baseline, window),
        _compare_classes(baseline, window),
    ]
    # One procedure over all columns: with a threshold for each, more columns would mean more false alarms.
    discoveries = apply_benjamini_hochberg([column.p for column in columns], fdr)
    pairs = zip(columns, discoveries.q, discoveries.is_significant, strict=True)
    return tuple(replace(column, q=q, is_significant=is_significant) for column, q, is_significant in pairs)


def _compare_inputs(baseline: Baseline, window: EventWindow) -> Iterator[ColumnDrift]:
    names = ("brightness", "contrast") if baseline.picture else ("mean", "deviation")
    sides = (baseline.input_mean, window.input_mean, "mean"), (baseline.input_std, window.input_std, "std")
    for name, (before, now, short) in zip(names, sides, strict=True):
        for channel in range(baseline.channels):
            label = name if baseline.channels == 1 else f"{name} of channel {channel}"
            yield _compare_numbers(f"input_{short}_{channel}", label, "inputs", before[channel], now[:, channel])


def _compare_confidence(baseline: Baseline, window: EventWindow) -> ColumnDrift:
    sides = baseline.confidence, window.confidence
    before, now = (np.round(side.astype(np.float64) / _GRID) * _GRID for side in sides)
    return _compare_numbers("confidence", "confidence", "predictions", before, now)


def _compare_numbers(name: str, label: str, group: str, reference: NDArray[Any], sample: NDArray[Any]) -> ColumnDrift:
    test = run_ks_test(reference, sample)
    return ColumnDrift(
        name,
        label,
        group,
        _compute_median(reference),
        _compute_median(sample),
        test.distance,
        test.p,
        reference,
        sample,
    )


def _compare_classes(baseline: Baseline, window: EventWindow) -> ColumnDrift:
    k = len(baseline.class_counts)
    foreign = (window.predicted < 0) | (window.predicted >= k)  # the events may come from another writer
    counts = np.bincount(np.where(foreign, k, window.predicted), minlength=k + 1)
    # One more class, for predictions that the model can't make: they show as a change, not as an error.
    reference = np.append(baseline.class_counts, 0)
    test = run_chi2_test(reference, counts)
    before, now = reference / reference.sum(), counts / counts.sum()
    # The class that changed most stands for the column in the sentence.
    most = int(abs(now - before).argmax())
    label = f"share of {baseline.labels[most]!r}" if most < k else "share of unknown classes"
    shares = float(before[most]), float(now[most])
    return ColumnDrift("classes", label, "predictions", *shares, test.distance, test.p, reference, counts)


def _compute_median(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _format_q_value(value: float) -> str:
    # So small a value comes from the tail of an approximation: its digits mean nothing.
    return "< 1e-9" if value < 1e-9 else f"= {value:.2g}"
