"""The class whose probability a logged number is, by which a threshold chooses one of two classes."""

from __future__ import annotations

import re

from mlscale.config.names.suggest import find_nearest
from mlscale.errors import MLScaleError
from mlscale.events.foreign.event_mapping import EventMapping
from mlscale.task_types.classification_type import ClassificationType
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.task_type import TaskType


def find_positive_class(mapping: EventMapping, task_type: TaskType, names: AnswerNames, where: str) -> str:
    """Return the class that a number from the threshold on stands for; '' without a threshold.

    It is the one of `prediction.positive`, or the only one whose name is a part of the field's name: a guess by the
    order of the classes would invert all predictions without a sign of it.

    Raises:
        MLScaleError: the model does not have two classes, or nothing shows which of them is meant.
    """
    if mapping.threshold is None:
        return ""
    labels = names.labels
    if not isinstance(task_type, ClassificationType) or len(labels) != 2:
        raise MLScaleError(
            "a threshold chooses one of two classes",
            where=f"{where}: prediction.threshold",
            why=f"the model has {len(labels)} classes" if labels else "the model predicts no classes",
            fix="prediction: <column>, without a threshold",
        )
    if mapping.positive in labels:
        return mapping.positive
    field = mapping.fields["prediction"].path or ""
    if mapping.positive:
        why = f"'{mapping.positive}' is not a class of the model"
    else:
        named = [label for label in labels if _is_word_of(label, field)]
        if len(named) == 1:
            return named[0]
        why = f"nothing in '{field}' shows it"
    best = find_nearest(mapping.positive, labels) or labels[1]
    raise MLScaleError(
        "the class whose probability is logged is not known",
        where=f"{where}: prediction.positive",
        why=f"{why}; the classes are {labels[0]} and {labels[1]}",
        fix=f"prediction: {{field: {field}, threshold: {mapping.threshold:g}, positive: '{best}'}}",
    )


def _is_word_of(label: str, field: str) -> bool:
    """Return True if the words of a class are words of a field's name: `ausfall` of `p_ausfall`."""
    words, parts = (re.findall(r"[^\W_]+", text.lower()) for text in (label, field))
    return bool(words) and any(parts[at : at + len(words)] == words for at in range(len(parts)))
