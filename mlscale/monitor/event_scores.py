"""The score of answered events, once their labels are known."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.task_types.event_forms import AnswerNames, JsonValue
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    from mlscale.events.event_table import Events


@dataclass(frozen=True)
class EventScorer:
    """Scores predictions as the validation samples of the reference were scored.

    Attributes:
        task_type: of the predictions.
        names: of classes and targets.
    """

    task_type: TaskType
    names: AnswerNames

    def score_events(self, events: Events, labels: Mapping[str, JsonValue]) -> NDArray[np.float64]:
        """Return the scores of the events that have a label, in the order of time, (l,); NaN where a label does not fit
        the prediction. Where the task type needs none, of all events.

        Args:
            events: that were answered.
            labels: by the id of the event, in the form of the task type.
        """
        if not self.task_type.needs_label:
            return self._score_pairs([(prediction, None) for prediction in events.predictions])
        # Only these are parsed: most events have no label.
        labelled = events.where(np.array([id_ in labels for id_ in events.id.tolist()], bool))
        parsed = _LabelParser(self)
        truths = [parsed.parse_label(labels[id_]) for id_ in labelled.id.tolist()]
        return self._score_pairs(list(zip(labelled.predictions, truths, strict=True)))

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
