"""Compute a batch by any runtime, with a row of each output for each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.export.engines.engine import Port

_DYNAMIC_SCALES = b"DynamicQuantizeLinear"
Tensors = Mapping[str, NDArray[Any]]


def is_scaled_by_batch(model: bytes) -> bool:
    """Return whether an ONNX model has scales that are those of all rows at once, as dynamic int8 has."""
    # The name of its operator, as the bytes of a node have it: reading the graph would take the package onnx.
    return _DYNAMIC_SCALES in model


def compute_rows(
    run: Callable[[Tensors], dict[str, NDArray[Any]]],
    tensors: Tensors,
    outputs: Sequence[Port],
    *,
    one_by_one: bool,
    fail: Callable[[str], Exception],
) -> dict[str, NDArray[Any]]:
    """Return the outputs for a batch, (n, …) each; of no rows for an empty batch.

    Args:
        run: computes a batch that is not empty.
        tensors: the inputs by name, (n, …) each.
        outputs: of the graph.
        one_by_one: compute each row alone: together, the outputs of a row would depend on the others.
        fail: returns the error to raise, of a reason.
    """
    rows = len(next(iter(tensors.values())))
    # A graph need not accept a batch of size 0.
    if not rows:
        return {port.name: np.zeros((0, *(max(size, 0) for size in port.shape[1:])), port.dtype) for port in outputs}
    if one_by_one and rows > 1:
        parts = [run({name: x[row : row + 1] for name, x in tensors.items()}) for row in range(rows)]
        return {port.name: np.concatenate([part[port.name] for part in parts]) for port in outputs}
    computed = run(tensors)
    # A batch size that is built into a reshape changes the number of rows without an error.
    for output in computed.values():
        if len(output) != rows:
            raise fail(f"it gives {len(output)} rows for {rows} samples")
    return computed
