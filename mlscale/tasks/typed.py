"""A task that a task type defines: its loss and its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import TaskType
from mlscale.tasks.base import Partial, Task
from mlscale.tasks.batch import Batch, unpack_batch


class TypedTask(Task):
    """The task of a task type that defines `compute_losses` and `convert_outputs`, as one of a package does.

    Validation and test metrics are ``val/loss`` and ``test/loss``.

    Args:
        task_type: the name of the type.
        model: (n, …) to the outputs that the type takes.
        optimizer: see `Task`.
        scheduler: see `Task`.

    Raises:
        MLScaleError: no such type is installed.
    """

    has_named_type: ClassVar[bool] = True

    task_type: TaskType

    def __init__(
        self,
        task_type: str,
        *,
        model: nn.Module,
        optimizer: Partial | None = None,
        scheduler: Partial | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, scheduler=scheduler)
        self.task_type = get_task_type(task_type)

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss of each sample, float (n,)."""
        return self.task_type.compute_losses(outputs, batch.y)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return the predictions of the type, by name."""
        return self.task_type.convert_outputs(self(unpack_batch(batch).x))
