"""The forms that predictions and labels have in events: columns that are watched, and JSON that is compared."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

PredictionColumns = dict[str, list[Any] | NDArray[Any]]
"""Columns of predictions, n each."""
SummaryColumns = dict[str, NDArray[np.float64] | list[str | None]]
"""Columns of n predictions by name: numbers, NaN where one is missing, or categories, None where one is missing."""
_MOST_SHOWN = 20
_MOST_COMPARED, _LONGEST_SHOWN = 1000, 200
"""The most class names in a message; those that are compared with an unknown one, and its characters that are shown."""
JsonValue = Any
"""A value of JSON."""
_MAX_COLUMNS = 20
"""The most numbers of a prediction that are watched one by one."""
_MAX_JSON_NUMBERS = 1000
"""The most numbers of a prediction that an event holds."""


@dataclass(frozen=True)
class TargetColumn:
    """A number that is predicted.

    Attributes:
        name: of its column.
        unit: of its values; '' where it is not known.
    """

    name: str
    unit: str = ""


@dataclass(frozen=True)
class AnswerNames:
    """The names that predictions are written with.

    Attributes:
        labels: of the classes by number.
        targets: of the numbers that are predicted, by column.
    """

    labels: tuple[str, ...] = ()
    targets: tuple[TargetColumn, ...] = ()

    @classmethod
    def parse_document(cls, document: Mapping[str, Any]) -> AnswerNames:
        """Return the names of a servable's document."""
        targets = tuple(TargetColumn(str(item["name"]), str(item["unit"])) for item in document.get("targets", ()))
        return cls(tuple(map(str, document["labels"])), targets)


class EventForms:
    """What events, labels and monitoring need of a task type. The defaults watch each number and each text of a
    prediction, take any JSON as a label, and score no sample.

    Attributes:
        needs_label: a prediction has a score only once its label is known.
    """

    needs_label: ClassVar[bool] = True

    def summarize_outputs(self, predictions: PredictionColumns, names: AnswerNames) -> SummaryColumns:
        """Return the columns of n predictions that are watched for drift.

        Args:
            predictions: as of `build_predictions`.
            names: of classes and targets.
        """
        columns: SummaryColumns = {}
        for name, values in predictions.items():
            columns |= _summarize_column(name, values)
        return columns

    def build_answers(self, predictions: PredictionColumns, names: AnswerNames) -> list[dict[str, Any]]:
        """Return the JSON form of each prediction: by default, its columns.

        Args:
            predictions: as of `build_predictions`.
            names: of classes and targets.
        """
        columns = [values.tolist() if isinstance(values, np.ndarray) else values for values in predictions.values()]
        return [dict(zip(predictions, row, strict=True)) for row in zip(*columns, strict=True)]

    def express_as_labels(self, predictions: PredictionColumns, names: AnswerNames) -> list[Any]:
        """Return each prediction as JSON, in the form that its label would have: by default, as it is answered; None
        for one of over 1,000 numbers.

        Args:
            predictions: as of `build_predictions`.
            names: of classes and targets.
        """
        if sum(_count_numbers(values) for values in predictions.values()) > _MAX_JSON_NUMBERS:
            return [None] * len(next(iter(predictions.values())))
        return self.build_answers(predictions, names)

    def parse_label(self, value: object, names: AnswerNames) -> Any:
        """Return a label in the form in which it is stored and scored.

        Args:
            value: JSON, as a client sends it; a text may be the JSON.
            names: of classes and targets.

        Raises:
            ValueError: it is not a label of this type; the message has the form of one.
        """
        if value is None:
            raise ValueError("a label is a value of JSON, and not null")
        return value

    def format_labels(self, y: NDArray[Any], names: AnswerNames) -> list[Any]:
        """Return the truth of n samples as labels, as a client sends them: by default, its numbers.

        Args:
            y: the truth as the data gives it, numbered as the model does, n first.
            names: of classes and targets.
        """
        labels: list[Any] = np.asarray(y).tolist()
        return labels

    def describe_label(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of what `parse_label` takes.

        Args:
            names: of classes and targets.
        """
        return {"not": {"type": "null"}}

    def score_prediction(self, prediction: JsonValue, label: JsonValue, names: AnswerNames) -> float:
        """Return the score of one sample, as `score_samples` does; NaN where there is none.

        Args:
            prediction: as of `express_as_labels`.
            label: as of `parse_label`; None unless `needs_label`.
            names: of classes and targets.
        """
        return math.nan


def parse_class_name(value: object, labels: Sequence[str]) -> str:
    """Return the name of a class, which may be given by its number.

    Raises:
        ValueError: there is no such class.
    """
    if type(value) is int and 0 <= value < len(labels):
        return labels[value]
    if isinstance(value, str) and value in labels:
        return value
    # Imported late: a right label needs no suggestion.
    from difflib import get_close_matches

    form = f"a label is the name of a class, or its number from 0 to {len(labels) - 1}"
    # A name that no model has would count as a wrong prediction for ever.
    near = get_close_matches(value[:_LONGEST_SHOWN], labels[:_MOST_COMPARED], 1) if isinstance(value, str) else []
    shown = ", ".join(labels[:_MOST_SHOWN]) + (", …" if len(labels) > _MOST_SHOWN else "")
    given = f"'{value[:_LONGEST_SHOWN]}'" if isinstance(value, str) and value.isprintable() else "this label"
    raise ValueError(
        f"{given} is not a class: {form}; {f'is {near[0]} meant? ' if near else ''}the classes are {shown}"
    )


def parse_json_text(value: object) -> JsonValue:
    """Return the value of a text that holds JSON, such as a list in a column of a CSV file; others as they are."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        # A text that is no JSON is reported by the caller, as what it is.
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _summarize_column(name: str, values: list[Any] | NDArray[Any]) -> SummaryColumns:
    if isinstance(values, list) and values and isinstance(values[0], str | None):
        return {name: [None if value is None else str(value) for value in values]}
    # A file has no number to watch, unless the type decodes it.
    if isinstance(values, list) and values and isinstance(values[0], bytes):
        return {}
    if isinstance(values, list) and values and isinstance(values[0], list):
        return {f"{name}_count": np.array([len(value) for value in values], np.float64)}
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" or not len(array):
        return {}
    # Wide arrays, such as probabilities of a thousand classes, would be as many tests for drift.
    flat = array.reshape(len(array), -1).astype(np.float64)
    if array.ndim == 1:
        return {name: flat[:, 0]}
    if flat.shape[1] <= _MAX_COLUMNS:
        return {f"{name}_{number}": flat[:, number] for number in range(flat.shape[1])}
    return {f"{name}_mean": flat.mean(1), f"{name}_std": flat.std(1)}


def _count_numbers(values: list[Any] | NDArray[Any]) -> int:
    """Return the numbers of one prediction in a column."""
    return np.size(values[0]) if len(values) and not isinstance(values[0], str | bytes) else 1
