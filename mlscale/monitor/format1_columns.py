"""Columns of events and reference profiles of format 1: mean and deviation of each channel, confidence, class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlscale.errors import MLScaleError
from mlscale.monitor.baseline import Baseline, round_confidence
from mlscale.monitor.drift.column_drift import Column

if TYPE_CHECKING:
    from mlscale.monitor.event_window import EventWindow


def build_event_columns(baseline: Baseline, window: EventWindow) -> dict[str, Column]:
    """Return the columns of a window, by the names of the baseline's sketches.

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
    columns: dict[str, Column] = {}
    for name, values in (("mean", window.input_mean), ("std", window.input_std)):
        # One copy by column: each is sorted, and a column of a matrix is not contiguous.
        wide = np.ascontiguousarray(values.T, np.float64)
        columns |= {f"input.{name}_{channel}": row for channel, row in enumerate(wide)}
    columns["output.confidence"] = round_confidence(window.confidence)
    # One more name, for predictions that the model can't make: they show as a new category, not as an error.
    names = np.array([*baseline.labels, "an unknown class"], object)
    is_known = (window.predicted >= 0) & (window.predicted < len(baseline.labels))
    columns["output.label"] = names[np.where(is_known, window.predicted, len(baseline.labels))]
    return columns


def name_columns(baseline: Baseline) -> dict[str, str]:
    """Return the names of a baseline's columns in sentences."""
    names = ("brightness", "contrast") if baseline.picture else ("mean", "deviation")
    labels = {"output.confidence": "confidence", "output.label": "predicted class"}
    for name, short in zip(names, ("mean", "std"), strict=True):
        for channel in range(baseline.channels):
            label = name if baseline.channels == 1 else f"{name} of channel {channel}"
            labels[f"input.{short}_{channel}"] = label
    return labels
