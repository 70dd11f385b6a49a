"""Columns of events as a look compares them, and their names in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift.column_drift import Column
from mlscale.reference.column_sketch import ColumnSketch, NumberSketch
from mlscale.task_types.event_forms import AnswerNames

if TYPE_CHECKING:
    from mlscale.events.event_table import Events

_CONFIDENCE = "output.confidence"
_TEXT_NAMES = {"input.unknown_words": "unknown words", "input.non_ascii": "characters beyond ASCII"}
_GRID = 1e-4  # of a confidence: another CPU computes the last digits differently, and 0.9999999 is as sure as 1


def collect_columns(events: Events) -> dict[str, Column]:
    """Return the columns of events by the names of a reference's sketches, (n,) each."""
    columns = {f"input.{name}": values for name, values in events.inputs.items()}
    columns |= {f"output.{name}": values for name, values in events.outputs.items()}
    confidence = columns.get(_CONFIDENCE)
    if confidence is not None and confidence.dtype.kind == "f":
        columns[_CONFIDENCE] = round_confidence(confidence)
    return columns


def round_sketch(sketch: ColumnSketch) -> ColumnSketch:
    """Return the sketch with its confidences as coarse as those of events; any other one as it is."""
    if sketch.name != _CONFIDENCE or not isinstance(sketch, NumberSketch):
        return sketch
    return replace(sketch, values=round_confidence(sketch.values))


def round_confidence(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return confidences on a grid that is coarser than the differences between CPUs."""
    rounded: NDArray[np.float64] = np.round(values.astype(np.float64) / _GRID) * _GRID
    return rounded


def name_columns(sketches: Sequence[ColumnSketch], names: AnswerNames, *, has_pixels: bool) -> Mapping[str, str]:
    """Return the names of columns in sentences.

    Args:
        sketches: of a reference.
        names: of classes and targets.
        has_pixels: samples are pixels: the mean of a channel is its brightness.
    """
    moments = ("brightness", "contrast") if has_pixels else ("mean", "deviation")
    has_one_channel = not any(sketch.name == "input.mean_1" for sketch in sketches)
    # Of texts the columns are ours; those of a table keep the names that its owner knows.
    own = _TEXT_NAMES if {"input.letters", "input.spaces"} <= {sketch.name for sketch in sketches} else {}
    return {
        sketch.name: own.get(sketch.name) or _name_input(sketch.name, moments, has_one_channel)
        if sketch.group == "inputs"
        else _name_output(sketch.name, names)
        for sketch in sketches
    }


def _name_input(name: str, moments: tuple[str, str], has_one_channel: bool) -> str:
    short = name.partition(".")[2]
    kind, _, channel = short.partition("_")
    if kind not in ("mean", "std") or not channel.isdecimal():
        return short
    moment = moments[kind == "std"]
    return moment if has_one_channel else f"{moment} of channel {channel}"


def _name_output(name: str, names: AnswerNames) -> str:
    short = name.partition(".")[2]
    targets = [target.name for target in names.targets]
    # A prediction may have the name of an input column.
    if short == "value" and len(targets) == 1:
        return f"predicted {targets[0]}"
    if short in targets:
        return f"predicted {short}"
    if short.startswith("share_"):
        return f"share of {short.removeprefix('share_')}"
    return {"label": "predicted class", "label_count": "number of labels", "loss": "loss per token"}.get(short, short)
