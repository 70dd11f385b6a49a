"""Numbers of 8 bits as int8 models store them: TensorFlow computes with the numbers that they stand for."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, Tensor, register


def _align(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """Return one value, or one for each entry of an axis, so that it broadcasts to x."""
    if len(values.shape) == 0 or values.shape.num_elements() == 1:
        return tf.reshape(values, ())
    axis %= len(x.shape)
    return tf.reshape(values, (*(1,) * axis, -1, *(1,) * (len(x.shape) - axis - 1)))


@register("QuantizeLinear")
def convert_to_int8(node: GraphNode, x: Tensor, scale: Tensor, zero: Tensor = None) -> Tensor:
    """Return the nearest whole number of x / scale, moved by the zero point, within the bounds of its dtype."""
    node.refuse_attributes(block_size=0, output_dtype=0)
    axis = node.get("axis", 1)
    dtype = tf.uint8 if zero is None else zero.dtype
    rounded = tf.round(x / _align(scale, x, axis))
    if zero is not None:
        rounded += tf.cast(_align(zero, x, axis), x.dtype)
    bounds = np.iinfo(dtype.as_numpy_dtype)
    return tf.cast(tf.clip_by_value(rounded, bounds.min, bounds.max), dtype)


@register("DequantizeLinear")
def convert_from_int8(node: GraphNode, x: Tensor, scale: Tensor, zero: Tensor = None) -> Tensor:
    """Return the number that each whole number stands for."""
    node.refuse_attributes(block_size=0)
    axis = node.get("axis", 1)
    y = tf.cast(x, scale.dtype)
    if zero is not None:
        y -= tf.cast(_align(zero, x, axis), scale.dtype)
    return y * _align(scale, x, axis)
