"""The columns of predictions in Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.export.engines.engine import Port
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    import pyarrow as pa


def list_column_types(task_type: TaskType, outputs: Sequence[Port], probabilities: bool = True) -> dict[str, Any]:
    """Return the columns of predictions with their types (pyarrow): those of the task type; where it has none, the
    model's outputs, as lists of their shape.

    Args:
        task_type: of the model.
        outputs: of the model.
        probabilities: with those of every class.
    """
    import pyarrow as pa

    if types := task_type.list_prediction_types(probabilities):
        return types
    columns = {}
    for port in outputs:
        column = pa.from_numpy_dtype(np.dtype(port.dtype))
        for _ in port.shape[1:]:
            column = pa.list_(column)
        columns[port.name] = column
    return columns


def build_column(values: object, type_: pa.DataType) -> Any:
    """Return a column of predictions (pyarrow).

    Args:
        values: n of them, in an array (n,) or (n, k), or a list.
        type_: of the column.
    """
    import pyarrow as pa

    if isinstance(values, np.ndarray) and values.ndim == 2:
        offsets = pa.array(np.arange(len(values) + 1, dtype=np.int32) * values.shape[1])
        return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values).ravel())).cast(type_)
    if isinstance(values, list):
        values = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
    return pa.array(values, type_)
