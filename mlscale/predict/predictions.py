"""The predictions for some samples in the terms of their task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from mlscale.task_types.task_type import AnswerNames, PredictionColumns, TaskType


class Predictions:
    """The predictions for n samples: attributes by the task type, and an answer for each sample.

    A classification has `labels`, `probabilities` and `classes`; several labels `labels` (sets) and `probabilities`; a
    regression `values`, `targets` and `units`; masks `masks`; a language model `nats`, `tokens` and `nats_per_token`;
    another task its outputs by name. Iterated or indexed, it gives answers as JSON values, as a server does.

    Args:
        task_type: says what the columns mean.
        columns: as of its `build_predictions`.
        names: of classes and targets.
    """

    def __init__(self, task_type: TaskType, columns: PredictionColumns, names: AnswerNames) -> None:
        self.task_type, self.columns, self.names = task_type, columns, names

    @cached_property
    def answers(self) -> list[dict[str, Any]]:
        """The answer for each sample, as JSON values."""
        return self.task_type.build_answers(self.columns, self.names)

    @cached_property
    def _attributes(self) -> Mapping[str, Any]:
        return self.task_type.build_attributes(self.columns, self.names)

    def __getattr__(self, name: str) -> Any:
        # Python asks for its own names, too: of an object that is copied, before it has any attribute.
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._attributes:
            kind, known = self.task_type.name, ", ".join(self._attributes)
            raise AttributeError(f"predictions of {kind} have no {name!r}; they have: {known}, answers")
        return self._attributes[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._attributes]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.answers)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.answers[number]

    def __repr__(self) -> str:
        return f"<{len(self)} predictions of {self.task_type.name}: {', '.join(self._attributes)}>"
