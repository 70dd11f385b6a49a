"""Models that predict a batch: a servable by ONNX Runtime, without torch; a trained task by torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from mlscale.encoders.encoder import Encoder
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import TaskType


class BatchModel(Protocol):
    """A model that predicts batches.

    Attributes:
        task_type: of its task.
        labels: names of the classes by number.
        encoder: of its raw input.
    """

    @property
    def task_type(self) -> TaskType: ...
    @property
    def labels(self) -> Sequence[str]: ...
    @property
    def encoder(self) -> Encoder: ...

    def __call__(self, raw: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Return the outputs for n samples, named as by `predict_step`."""


@dataclass(frozen=True)
class ServableModel:
    """A servable as a model: needs onnxruntime and numpy alone."""

    servable: Any
    task_type: TaskType = field(default_factory=lambda: get_task_type("classification"))

    @classmethod
    def load(cls, folder: Path, threads: int) -> ServableModel:
        """Read and verify a servable.

        Raises:
            MLScaleError: it is corrupt, or onnxruntime is not installed (exit code 5).
        """
        # Imported on use: runs are predicted by torch, where onnxruntime need not be installed.
        from mlscale.export.servable import load

        return cls(load(folder, threads=threads))

    @property
    def labels(self) -> Sequence[str]:
        return tuple(self.servable.labels)

    @property
    def encoder(self) -> Encoder:
        encoder: Encoder = self.servable.encoder
        return encoder

    def __call__(self, raw: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        return {"logits": self.servable.logits(raw)}
