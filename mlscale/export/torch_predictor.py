"""Predict by torch as the servable of a trained task would: raw samples in, predictions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.export.engines.engine import Port
from mlscale.export.measure_export import describe_served_model
from mlscale.export.servable import RawPredictions, drop_bad_rows
from mlscale.export.served_module import ServedModule, build_example_tensors, build_served_module
from mlscale.task_types.task_type import AnswerNames, TaskType

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule

BATCH = 256
"""Rows that are computed at once by default: bounds the memory of activations."""
_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class TorchModel:
    """The task behind its preprocessing; see `Servable`.

    Attributes:
        task_type: says what its outputs mean.
        encoder: of its raw input.
        names: of classes and targets.
        model: on its device.
        outputs: what it gives, as the task's `predict_step`.
        device: such as cpu or cuda:1.
        precision: of the run; mixed ones are used, others are float32.
        batch: rows that are computed at once.
    """

    task_type: TaskType = field(repr=False)
    encoder: Encoder
    names: AnswerNames = field(repr=False)
    model: ServedModule = field(repr=False)
    outputs: tuple[Port, ...]
    device: str = "cpu"
    precision: str = "32-true"
    batch: int = BATCH

    @classmethod
    def build(
        cls,
        task: LightningModule,
        task_type: TaskType,
        encoder: Encoder,
        names: AnswerNames,
        *,
        device: str = "cpu",
        precision: str = "32-true",
        batch: int = BATCH,
    ) -> TorchModel:
        """Return the model of a task with its weights.

        Raises:
            MLScaleError: the task gives no row for each sample.
        """
        model = build_served_module(task, task_type, encoder)
        with torch.no_grad():
            example = model(*build_example_tensors(encoder.inputs))
        outputs = tuple(
            Port(name, str(value.dtype).removeprefix("torch."), (-1, *value.shape[1:]))
            for name, value in example.items()
        )
        return cls(task_type, encoder, names, model.to(device), outputs, device, precision, batch)

    @classmethod
    def wrap_task(
        cls,
        task: LightningModule,
        data: LightningDataModule,
        *,
        device: str = "cpu",
        precision: str = "32-true",
        batch: int = BATCH,
    ) -> TorchModel:
        """Return the model of a task with its weights, and of its training data, prepared and set up for validation.

        Args:
            task: with its weights.
            data: of its training.
            device: see `TorchModel`.
            precision: of the run.
            batch: rows that are computed at once.

        Raises:
            MLScaleError: the task gives no row for each sample.
        """
        task_type, given, _ = describe_served_model(task, data)
        return cls.build(task, task_type, given.encoder, given.names, device=device, precision=precision, batch=batch)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes by number."""
        return self.names.labels

    def pack_samples(self, raw: Sequence[Any]) -> EncodedSamples:
        """Return raw samples as the trained model takes them."""
        return self.encoder.encode_samples(raw)

    def compute_samples(self, packed: EncodedSamples) -> Mapping[str, NDArray[Any]]:
        """Return the outputs of the samples that are not bad, a row for each."""
        # A sample may have several rows, such as the windows of a document: their outputs are merged.
        if packed.counts is not None:
            return self.task_type.merge_rows(self._compute(packed.tensors), packed.counts[packed.counts > 0])
        return self._compute(drop_bad_rows(packed))

    def predict_samples(self, raw: Sequence[Any]) -> RawPredictions:
        """Return predictions for raw samples; see `Servable.predict_samples`."""
        packed = self.pack_samples(raw)
        outputs = self.compute_samples(packed)
        return RawPredictions(self.task_type.build_predictions(outputs, self.labels), packed.bad)

    def _compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        rows = len(next(iter(tensors.values())))
        # All samples were refused: the columns still need their names, shapes and types.
        if not rows:
            return {port.name: np.zeros((0, *port.shape[1:]), port.dtype) for port in self.outputs}
        parts = [
            self._compute_batch({name: values[at : at + self.batch] for name, values in tensors.items()})
            for at in range(0, rows, self.batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _compute_batch(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        dtype = _AUTOCAST.get(self.precision)
        mixed: Any = torch.autocast(torch.device(self.device).type, dtype) if dtype else nullcontext()
        with torch.inference_mode(), mixed, torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a forward that draws gives a part that is computed again the same rows
            # Converted by the module, on its device: a byte a pixel is copied to it, not four.
            given = (torch.from_numpy(tensors[spec.name]).to(self.device) for spec in self.model.specs)
            return {name: value.cpu().numpy() for name, value in self.model(*given).items()}
