"""Convert a batch and the model's outputs for it to columns, one row for each sample.

Columns are numpy arrays, first dimension n. Every task type has `loss`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from mlscale.errors import MLScaleError
from mlscale.task_types.task_type import TaskType


def compute_sample_columns(task_type: TaskType, outputs: Mapping[str, Tensor], y: Tensor) -> dict[str, NDArray[Any]]:
    """Return the columns of a batch.

    Args:
        task_type: of the task.
        outputs: of `predict_step`: {"logits"}, {"value"} or {"nats", "tokens"}, n first.
        y: the truth, as the data gives it.

    Raises:
        MLScaleError: the outputs are not those of the task type.
    """
    if not isinstance(outputs, Mapping):
        raise MLScaleError(
            f"predict_step gives a {type(outputs).__name__}, and a module with a kind gives its outputs by name",
            where="task.predict_step",
            why=f"kind is {task_type.name}, whose outputs are {', '.join(task_type.output_meanings)}",
            fix="leave kind out of the class: then its own metrics alone are measured",
        )
    # A user's task may return other names or shapes; the error then names both instead of torch's message alone.
    try:
        return task_type.compute_columns(outputs, y.to(next(iter(outputs.values())).device))
    except (KeyError, RuntimeError, IndexError) as error:
        shapes = {name: tuple(value.shape) for name, value in outputs.items() if isinstance(value, Tensor)}
        raise MLScaleError(
            f"the model's output can't be measured as {task_type.name}",
            where="task.predict_step",
            why=f"it gives {shapes} for targets of {tuple(y.shape)}: {' '.join(str(error).split())[:200]}",
            fix="let predict_step and kind agree: docs/evaluate.md lists what each kind gives",
        ) from error
