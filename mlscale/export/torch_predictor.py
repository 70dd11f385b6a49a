"""Predict by torch as the servable of a trained task would: raw samples in, labels and probabilities out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.export.onnx_export import INPUT, NormalisedTask, build_normalised_task
from mlscale.export.servable import Port, Prediction, cast_input, compute_softmax
from mlscale.export.validation_samples import describe_sample_format

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

_BATCH = 256  # samples that are computed at once: bounds the memory of activations


@dataclass(frozen=True)
class TorchModel:
    """The task behind its preprocessing, on the CPU.

    Attributes:
        input: the raw input.
        labels: names of the classes by number.
    """

    input: Port
    labels: tuple[str, ...] = field(repr=False)
    model: NormalisedTask = field(repr=False)

    @classmethod
    def wrap_task(cls, task: torch.nn.Module, data: LightningDataModule) -> TorchModel:
        """Return the model of a task with its weights, and of its training data, prepared and set up for validation.

        Raises:
            MLScaleError: the task's output is not logits.
        """
        given = describe_sample_format(data)
        model = build_normalised_task(task, given)
        # The number of classes is that of the logits: data may have no class names.
        with torch.no_grad():
            classes = model(torch.zeros(1, *given.shape, dtype=getattr(torch, given.dtype))).shape[1]
        labels = given.labels or tuple(map(str, range(classes)))
        return cls(Port(INPUT, given.dtype, (-1, *given.shape)), labels, model)

    def predict(self, raw: NDArray[Any]) -> Prediction:
        """Return labels and probabilities of n samples; see `Servable.predict`.

        Raises:
            MLScaleError: another shape, or values that the input's dtype can't hold.
        """
        whole = torch.from_numpy(cast_input(raw, self.input))
        with torch.inference_mode():
            parts = [self.model(whole[at : at + _BATCH]).numpy() for at in range(0, len(whole), _BATCH)]
        # An empty batch gives an empty prediction, as of a servable.
        logits = np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)
        probabilities = compute_softmax(logits)
        classes = probabilities.argmax(-1)
        return Prediction([self.labels[number] for number in classes.tolist()], probabilities, classes)
