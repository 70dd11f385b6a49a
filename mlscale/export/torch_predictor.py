"""Predict by torch as the servable of a trained task would: raw samples in, predictions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.encoders.encoder import INPUT, EncodedSamples, Encoder
from mlscale.export.measure_export import describe_served_model
from mlscale.export.onnx_engine import Port
from mlscale.export.servable import Prediction, RawPredictions, cast_input, compute_softmax, drop_bad_rows
from mlscale.export.served_module import ServedModule, compute_torch_outputs
from mlscale.task_types.task_type import AnswerNames, TaskType

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule

_BATCH = 256  # samples that are computed at once: bounds the memory of activations


@dataclass(frozen=True)
class TorchModel:
    """The task behind its preprocessing, on the CPU; see `Servable`.

    Attributes:
        task_type: says what its outputs mean.
        encoder: of its raw input.
        names: of classes and targets.
    """

    task_type: TaskType = field(repr=False)
    encoder: Encoder
    names: AnswerNames = field(repr=False)
    model: ServedModule = field(repr=False)

    @classmethod
    def wrap_task(cls, task: LightningModule, data: LightningDataModule) -> TorchModel:
        """Return the model of a task with its weights, and of its training data, prepared and set up for validation.

        Raises:
            MLScaleError: the task gives no row for each sample.
        """
        task_type, given, model = describe_served_model(task, data)
        return cls(task_type, given.encoder, given.names, model)

    @property
    def input(self) -> Port:
        """The first tensor of an encoded sample."""
        first = self.encoder.inputs[0]
        return Port(first.name, first.dtype, (-1, *first.shape))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes by number."""
        return self.names.labels

    def pack_samples(self, raw: Sequence[Any]) -> EncodedSamples:
        """Return raw samples as the trained model takes them."""
        return self.encoder.encode_samples(raw)

    def compute_samples(self, packed: EncodedSamples) -> Mapping[str, NDArray[Any]]:
        """Return the outputs of the samples that are not bad, a row for each."""
        if packed.counts is not None:
            return self.task_type.merge_rows(self._compute(packed.tensors), packed.counts[packed.counts > 0])
        return self._compute(drop_bad_rows(packed))

    def predict_samples(self, raw: Sequence[Any]) -> RawPredictions:
        """Return predictions for raw samples; see `Servable.predict_samples`."""
        packed = self.pack_samples(raw)
        outputs = self.compute_samples(packed)
        return RawPredictions(self.task_type.build_predictions(outputs, self.labels), packed.bad)

    def predict(self, raw: NDArray[Any]) -> Prediction:
        """Return labels and probabilities of n encoded samples; see `Servable.predict`.

        Raises:
            MLScaleError: another shape, or values that the input's dtype can't hold.
        """
        probabilities = compute_softmax(self._compute({INPUT: cast_input(raw, self.input)})["logits"])
        classes = probabilities.argmax(-1)
        return Prediction([self.labels[number] for number in classes.tolist()], probabilities, classes)

    def _compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        rows = len(next(iter(tensors.values())))
        # Of an empty batch, the outputs of one sample show names and shapes.
        if not rows:
            one = {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in self.encoder.inputs}
            return {name: values[:0] for name, values in compute_torch_outputs(self.model, one).items()}
        parts = [
            compute_torch_outputs(self.model, {name: values[at : at + _BATCH] for name, values in tensors.items()})
            for at in range(0, rows, _BATCH)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
