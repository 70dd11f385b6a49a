"""Predictions and labels as other servers log them, in the form that the task type has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlscale.errors import MLScaleError
from mlscale.events.foreign.event_mapping import parse_number_text
from mlscale.task_types.classification_type import ClassificationType
from mlscale.task_types.event_forms import AnswerNames, PredictionColumns, parse_json_text
from mlscale.task_types.multilabel_type import MultilabelType
from mlscale.task_types.regression_type import RegressionType
from mlscale.task_types.task_type import TaskType

SUPPORTED = (ClassificationType, MultilabelType, RegressionType)


@dataclass(frozen=True)
class LoggedPrediction:
    """One prediction.

    Attributes:
        value: in the form of a label: the name of a class, names of labels, a number, numbers by target.
        confidence: of a class; NaN where it is not known.
        shares: a probability for each class; None where they are not known.
    """

    value: Any
    confidence: float = math.nan
    shares: tuple[float, ...] | None = None


def require_supported(task_type: TaskType) -> None:
    """Raise for a task type whose predictions a log does not hold as columns.

    Raises:
        MLScaleError: it is one of those.
    """
    if not isinstance(task_type, SUPPORTED):
        names = ", ".join(str(kind.name) for kind in SUPPORTED)
        raise MLScaleError(
            f"events of other servers are not read for the task type {task_type.name}",
            where="events",
            why=f"their predictions are columns, of {names}",
            fix="mlscale serve <model> events=events, which writes events of any type, as mlscale predict does",
        )


def parse_prediction(
    value: object,
    task_type: TaskType,
    names: AnswerNames,
    *,
    confidence: object = None,
    probabilities: object = None,
    threshold: float | None = None,
    positive: str = "",
) -> LoggedPrediction:
    """Return a prediction in the form of its task type.

    Args:
        value: a class by name or number, names of labels, or numbers; None with `probabilities`.
        confidence: of the class, as it was logged.
        probabilities: one for each class: a list, a text, or an object by the name of the class.
        threshold: the value is a number, and from this one on the positive class.
        positive: the name of that class, with a threshold.

    Raises:
        ValueError: it is not a prediction of that type.
    """
    shares = None if probabilities in (None, "") else _parse_shares(probabilities, names.labels)
    if isinstance(task_type, ClassificationType):
        return _parse_class(value, task_type, names, confidence, shares, threshold, positive)
    label = parse_logged_label(value, task_type, names)
    if isinstance(task_type, MultilabelType) and shares is None:
        shares = tuple(float(name in label) for name in names.labels)
    return LoggedPrediction(label, shares=shares)


def parse_logged_label(value: object, task_type: TaskType, names: AnswerNames) -> Any:
    """Return a label, which may be a text of a number where the type has numbers.

    Raises:
        ValueError: it is not a label of that type.
    """
    value = parse_json_text(value)
    if isinstance(task_type, ClassificationType):
        value = _find_class(value, names)
    elif isinstance(task_type, MultilabelType) and isinstance(value, list):
        value = [_find_class(item, names) for item in value]
    elif isinstance(task_type, RegressionType):
        targets = [target.name for target in names.targets]
        # Most servers log several targets as a list, in their order.
        if isinstance(value, list) and len(value) == max(1, len(targets)):
            value = dict(zip(targets, value, strict=True)) if len(targets) > 1 else value[0]
        value = {k: _convert_number(v) for k, v in value.items()} if isinstance(value, dict) else _convert_number(value)
    return task_type.parse_label(value, names)


def build_prediction_columns(
    predictions: Sequence[LoggedPrediction], task_type: TaskType, names: AnswerNames
) -> PredictionColumns:
    """Return columns as of `TaskType.build_predictions`, as far as events need them."""
    values = [prediction.value for prediction in predictions]
    if isinstance(task_type, ClassificationType):
        numbers = {name: number for number, name in enumerate(names.labels)}
        return {
            "predicted": values,
            "class": np.array([numbers[name] for name in values], np.int32),
            "confidence": np.array([prediction.confidence for prediction in predictions], np.float32),
        }
    if isinstance(task_type, MultilabelType):
        shares = np.array([prediction.shares for prediction in predictions], np.float32)
        return {"predicted": values, "probabilities": shares.reshape(len(values), -1)}
    rows = [list(value.values()) if isinstance(value, dict) else value for value in values]
    return {"value": np.array(rows, np.float64).reshape(len(rows), -1)}


def _parse_class(
    value: object,
    task_type: TaskType,
    names: AnswerNames,
    confidence: object,
    shares: tuple[float, ...] | None,
    threshold: float | None,
    positive: str,
) -> LoggedPrediction:
    known = math.nan if confidence in (None, "") else _parse_share(confidence, "confidence")
    if threshold is not None:
        number = _parse_share(value, "prediction")
        negative = names.labels[1 - names.labels.index(positive)]
        chosen = positive if number >= threshold else negative
        return LoggedPrediction(chosen, max(number, 1 - number) if math.isnan(known) else known)
    if shares is not None:
        known = max(shares) if math.isnan(known) else known
        if value in (None, ""):
            return LoggedPrediction(names.labels[int(np.argmax(shares))], known, shares)
    return LoggedPrediction(task_type.parse_label(_find_class(value, names), names), known, shares)


def _find_class(value: object, names: AnswerNames) -> object:
    """Return the name or the number of a class: a text may be its number, and a number may be written as 3.0."""
    if isinstance(value, str) and value not in names.labels:
        value = _convert_number(value)
    if isinstance(value, float) and value.is_integer():
        # A class may be called 3.
        return str(int(value)) if str(int(value)) in names.labels else int(value)
    if isinstance(value, int) and not isinstance(value, bool) and str(value) in names.labels:
        return str(value)
    return value


def _parse_shares(value: object, labels: Sequence[str]) -> tuple[float, ...]:
    items = parse_json_text(value)
    if isinstance(items, dict):
        items = [items[name] for name in labels if name in items] if len(items) == len(labels) else []
    if isinstance(items, str):
        items = items.split(",")
    if not isinstance(items, list | tuple) or len(items) != len(labels):
        raise ValueError(f"probabilities are a number for each of {len(labels)} classes")
    return tuple(_parse_share(item, "probabilities") for item in items)


def _parse_share(value: object, entry: str) -> float:
    """Return a probability, 0 to 1; a text may have a percent sign.

    Raises:
        ValueError: it is not a number, or not between 0 and 1.
    """
    share = parse_number_text(value)
    if 1 < share <= 100:
        raise ValueError(f"{share:g} is over 1; percent are read by {entry}: {{field: <column>, scale: 0.01}}")
    if not 0 <= share <= 1:
        raise ValueError(f"{share:g} is not a probability, 0 to 1")
    return share


def _convert_number(value: object) -> Any:
    """Return the number of a text; others as they are."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
