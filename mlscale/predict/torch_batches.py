"""Predict batches with a trained task by torch, on any device, through its `predict_step`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from mlscale.encoders.encoder import Encoder
from mlscale.encoders.image_encoder import ImageEncoder

if TYPE_CHECKING:
    from mlscale.task_types.task_type import TaskType
    from mlscale.tasks.base import Task

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class TaskModel:
    """A task with its weights, as a model.

    Args:
        task: with `predict_step`.
        task_type: of it.
        encoder: of its raw input; images are normalised by its mean and std.
        labels: names of the classes by number.
        device: such as cpu or cuda:1.
        precision: of the run; mixed ones are used, others become float32.
    """

    def __init__(
        self,
        task: Task,
        task_type: TaskType,
        *,
        encoder: Encoder,
        labels: Sequence[str],
        device: str = "cpu",
        precision: str = "32-true",
    ) -> None:
        self.task_type, self.labels, self.encoder = task_type, tuple(labels), encoder
        self._device = torch.device(device)
        self._task = task.to(self._device).eval()
        scale = (encoder.mean, encoder.std) if isinstance(encoder, ImageEncoder) else ((), ())
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=self._device)[:, None, None] if len(values) else None
            for values in scale
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
