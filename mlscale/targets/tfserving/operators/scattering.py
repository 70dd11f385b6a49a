"""Operators that write values to positions of a tensor."""

from __future__ import annotations

import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, NotExpressible, Tensor, register
from mlscale.targets.tfserving.operators.indexing import build_positions, wrap_negative


@register("ScatterND")
def write_slices(node: GraphNode, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Return x with slices at given positions replaced by, or combined with, others."""
    depth = indices.shape[-1]
    if depth is None:
        raise NotExpressible("positions of any number of axes")
    return _write(node, x, wrap_negative(indices, tf.shape(x, tf.int64)[:depth]), updates)


@register("ScatterElements")
def write_elements(node: GraphNode, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Return x with single values at places of an axis replaced by, or combined with, others."""
    return _write(node, x, build_positions(x, indices, node.get("axis", 0)), updates)


def _write(node: GraphNode, x: Tensor, positions: Tensor, updates: Tensor) -> Tensor:
    # Where a position is written twice without a reduction, ONNX leaves open which value stays.
    functions = {
        "none": tf.tensor_scatter_nd_update,
        "add": tf.tensor_scatter_nd_add,
        "max": tf.tensor_scatter_nd_max,
        "min": tf.tensor_scatter_nd_min,
    }
    reduction = node.get("reduction", "none")
    if reduction not in functions:
        raise NotExpressible(f"reduction={reduction}")
    return functions[reduction](x, positions, updates)
