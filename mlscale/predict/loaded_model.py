"""A loaded model, which predicts whatever form its samples have in Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import Encoder
from mlscale.predict.batch_models import NOT_FINITE, BatchModel, mark_infinite_outputs
from mlscale.predict.given_samples import collect_samples, describe_taken_samples, raise_bad_samples
from mlscale.task_types.task_type import AnswerNames, PredictionColumns, TaskType

_BATCH = 256  # samples that are computed at once: bounds the memory of pixels and activations


class LoadedModel:
    """A trained model; `mlscale.load` returns it.

    Args:
        model: a servable, or a trained task.
        trained_on: the column of a table's texts that it was trained on; None where it is not known.
    """

    def __init__(self, model: BatchModel, trained_on: str | None = None) -> None:
        self._model, self._trained_on = model, trained_on

    @property
    def task_type(self) -> TaskType:
        """The type of its task, which says what a prediction is."""
        return self._model.task_type

    @property
    def encoder(self) -> Encoder:
        """The encoder of its samples."""
        return self._model.encoder

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes by number; empty where there are none."""
        return tuple(self._model.labels)

    def predict(self, x: object) -> Predictions:
        """Return the predictions for one sample or many.

        Args:
            x: by what the model takes. Images: a path, the bytes of a file, a PIL image, a list of such, or an array of
                decoded ones, (n, channels, height, width), without any normalisation. Rows of a table: a mapping by
                column, a list of them, or a data frame of pandas, polars or pyarrow. Texts: a str, bytes, a
                `pathlib.Path` of a file, a list of such, or a column of a data frame. Of a data frame, images and texts
                are those of the column that was trained on, else of the only one that has such. What a user's own data
                module gives to the model: an array (n, …), a path of a .npy file, a list of samples; a mapping of
                arrays where it takes several.

        Raises:
            MLScaleError: a sample can't be read or encoded, or the model's output for it is not finite; the first of
                them is named with the reason.
        """
        given = collect_samples(x, self.encoder, self._trained_on)
        raise_bad_samples(given, given.bad, self.encoder)
        parts: list[dict[str, NDArray[Any]]] = []
        bad: dict[int, str] = {}
        # At least one batch: the outputs of no samples have their shapes, too.
        for start in range(0, max(1, len(given.samples)), _BATCH):
            packed = self._model.pack_samples(given.samples[start : start + _BATCH])
            bad |= {start + number: reason for number, reason in packed.bad.items()}
            if not bad:
                parts.append(dict(self._model.compute_samples(packed)))
        raise_bad_samples(given, bad, self.encoder)
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        # argmax would still choose a class, the first one.
        wrong = np.flatnonzero(mark_infinite_outputs(outputs)).tolist()
        raise_bad_samples(given, dict.fromkeys(wrong, NOT_FINITE), self.encoder)
        columns = self.task_type.build_predictions(outputs, self.labels)
        return Predictions(self.task_type, columns, self._model.names)

    def __repr__(self) -> str:
        return f"<model of {self.task_type.name}: {describe_taken_samples(self.encoder).removeprefix('the model ')}>"


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
