"""The interface of models that predict raw samples: a servable by ONNX Runtime; a trained task by torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.export.engines.engine import Port
from mlscale.task_types.task_type import AnswerNames, TaskType

NOT_FINITE = "the model's output is not a finite number"


class BatchModel(Protocol):
    """A model of raw samples: `export.servable.Servable` and `export.torch_predictor.TorchModel`.

    Attributes:
        task_type: says what its outputs mean.
        encoder: of its raw input.
        outputs: what it gives, as the task's `predict_step`.
        names: of classes and targets.
        labels: names of the classes by number.
    """

    @property
    def task_type(self) -> TaskType: ...
    @property
    def encoder(self) -> Encoder: ...
    @property
    def outputs(self) -> tuple[Port, ...]: ...
    @property
    def names(self) -> AnswerNames: ...
    @property
    def labels(self) -> Sequence[str]: ...

    def pack_samples(self, raw: Sequence[Any]) -> EncodedSamples:
        """Return raw samples as the model takes them. May be called by several threads."""

    def compute_samples(self, packed: EncodedSamples) -> Mapping[str, NDArray[Any]]:
        """Return the outputs of the samples that are not bad, a row for each, named as by `predict_step`."""


def mark_infinite_outputs(outputs: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """Return which samples have an output that is not finite, (n,)."""
    bad = np.zeros(len(next(iter(outputs.values()))), np.bool_)
    for name, value in outputs.items():
        if value.dtype.kind == "f":  # a logit of -inf rules a class out
            wrong = np.isnan(value) | np.isposinf(value) if name == "logits" else ~np.isfinite(value)
            bad |= wrong.any(axis=tuple(range(1, wrong.ndim)))
    return bad
