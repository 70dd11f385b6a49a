"""Columns of events as a look compares them, and their names in sentences.

The score of answered events, once their labels are known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift.column_drift import GROUP, Column
from mlscale.reference.column_sketch import ColumnSketch, NumberSketch
from mlscale.task_types.event_forms import AnswerNames, JsonValue
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    from mlscale.events.event_table import Events

_CONFIDENCE = "output.confidence"
_TEXT_NAMES = {"input.unknown_words": "unknown words", "input.non_ascii": "characters beyond ASCII"}
_GRID = 1e-4  # of a confidence: another CPU computes the last digits differently, and 0.9999999 is as sure as 1


def collect_columns(events: Events) -> dict[str, Column]:
    """Return the columns of events by the names of a reference's sketches, (n,) each, and `GROUP` if one has any."""
    columns = {f"input.{name}": values for name, values in events.inputs.items()}
    columns |= {f"output.{name}": values for name, values in events.outputs.items()}
    if events.table["group"].null_count < len(events):
        columns[GROUP] = events.get_column("group")
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


@dataclass(frozen=True)
class EventScorer:
    """Scores predictions as the validation samples of the reference were scored.

    Attributes:
        task_type: of the predictions.
        names: of classes and targets.
    """

    task_type: TaskType
    names: AnswerNames

    def select_events(self, events: Events, labels: Mapping[str, JsonValue]) -> Events:
        """Return the events that have a label; where the task type needs none, all of them."""
        if not self.task_type.needs_label:
            return events
        return events.where(np.array([id_ in labels for id_ in events.id.tolist()], bool))

    def score_events(self, events: Events, labels: Mapping[str, JsonValue]) -> NDArray[np.float64]:
        """Return the scores of events, in the order of time, (l,); NaN where a label does not fit the prediction.

        Args:
            events: of `select_events`.
            labels: by the id of the event, in the form of the task type.
        """
        if not self.task_type.needs_label:
            return self._score_pairs([(prediction, None) for prediction in events.predictions])
        parsed = _LabelParser(self)
        truths = [parsed.parse_label(labels[id_]) for id_ in events.id.tolist()]
        return self._score_pairs(list(zip(events.predictions, truths, strict=True)))

    def _score_pairs(self, pairs: list[tuple[JsonValue, JsonValue]]) -> NDArray[np.float64]:
        scores = np.full(len(pairs), np.nan)
        for row, (prediction, truth) in enumerate(pairs):
            # A label that Python has stored was not checked, and code of a package may raise anything.
            with contextlib.suppress(Exception):
                scores[row] = self.task_type.score_prediction(prediction, truth, self.names)
        return scores


class _LabelParser:
    """Parses labels as a server does; each text once, since classes repeat."""

    def __init__(self, scorer: EventScorer) -> None:
        self._scorer = scorer
        self._known: dict[str, Any] = {}

    def parse_label(self, value: JsonValue) -> JsonValue:
        """Return a label in the form in which it is scored; one of another form as it is."""
        if isinstance(value, str) and value in self._known:
            return self._known[value]
        try:
            parsed = self._scorer.task_type.parse_label(value, self._scorer.names)
        except Exception:
            # A class that the model does not have is a wrong prediction, and not an error. Any exception: the parser
            # may be that of a third-party type, and one label must not end the check of all events.
            parsed = value
        if isinstance(value, str):
            self._known[value] = parsed
        return parsed
