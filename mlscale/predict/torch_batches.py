"""Predict batches with a trained task by torch, on any device, through its `predict_step`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from mlscale.predict.prepare_input import InputFormat

if TYPE_CHECKING:
    from mlscale.data.data_facts import DataFacts
    from mlscale.data.tables.features import FeatureEncoder
    from mlscale.task_types.task_type import TaskType
    from mlscale.tasks.base import Task

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class TaskModel:
    """A task with its weights, as a model.

    Args:
        task: with `predict_step`.
        task_type: of it.
        takes: the format of its raw input.
        labels: names of the classes by number.
        mean, std: of each channel, that images are normalised by; empty for none.
        device: such as cpu or cuda:1.
        precision: of the run; mixed ones are used, others become float32.
    """

    def __init__(
        self,
        task: Task,
        task_type: TaskType,
        *,
        takes: InputFormat,
        labels: Sequence[str],
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        device: str = "cpu",
        precision: str = "32-true",
    ) -> None:
        self.task_type, self.labels, self.takes = task_type, tuple(labels), takes
        self._device = torch.device(device)
        self._task = task.to(self._device).eval()
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self._device)[:, None, None] if len(values) else None
            for values in (mean, std)
        )
        self._dtype = _AUTOCAST.get(precision)

    def __call__(self, raw: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        mixed: Any = torch.autocast(self._device.type, self._dtype) if self._dtype else nullcontext()
        with torch.inference_mode(), mixed:
            outputs = self._task.predict_step(self._build_batch(torch.from_numpy(raw).to(self._device)), 0)
        # numpy has no bfloat16.
        return {
            name: value.float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy()
            for name, value in outputs.items()
        }

    def _build_batch(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        # Converted on the device: a byte a pixel is copied to it, not four.
        if x.dtype == torch.uint8:
            x = x.float()
        # The same arithmetic as in training and in an exported graph.
        if self._mean is not None and self._std is not None:
            x = (x - self._mean) / self._std
        # `predict_step` takes a batch as training has it; the labels are unknown and only fill their place.
        return {"x": x, "y": torch.zeros(len(x), dtype=torch.int64, device=x.device)}


def infer_input_format(facts: DataFacts, resize: bool) -> InputFormat:
    """Return the input format of a model trained on data with these facts: images raw, all else as in training."""
    image = facts.height is not None and len(facts.sample) == 3
    dtype = "uint8" if image and facts.mean else str(facts.dtype)
    return InputFormat(tuple(facts.sample), dtype, resize and image, getattr(facts, "max_pixels", None))


def add_table_encoding(takes: InputFormat, features: FeatureEncoder) -> InputFormat:
    """Return the format for rows of a table, which `features` (`mlscale.data.tables.features.FeatureEncoder`)
    encodes."""
    from mlscale.data.tables.columns import DataTable

    def encode_rows(keys: Sequence[str], columns: Mapping[str, Any]) -> tuple[NDArray[Any], Mapping[int, str]]:
        encoded = features.encode_table(DataTable(columns, keys), where="input")
        return encoded.x, encoded.bad

    return replace(takes, names=tuple(column.name for column in features.columns), encode=encode_rows)
