"""Operators that make, change or read shapes, and those that make constants."""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, NotExpressible, Tensor, register
from mlscale.targets.tfserving.operators.elementwise import get_tensor_type


@register("Constant")
def make_constant(node: GraphNode) -> Tensor:
    """Return the value of the only attribute."""
    ((name, value),) = node.attributes.items()
    if name == "sparse_value":
        raise NotExpressible("a sparse value")
    # Numbers that are not in a tensor are of one dtype each.
    dtypes = {"float": tf.float32, "floats": tf.float32, "int": tf.int64, "ints": tf.int64}
    return tf.constant(value, dtypes.get(name.removeprefix("value_")))


@register("ConstantOfShape", folded=(0,))
def fill_shape(node: GraphNode, shape: Tensor) -> Tensor:
    """Return one value in a shape, a float zero by default."""
    value = node.get("value", np.zeros(1, np.float32))
    return tf.fill(shape, tf.constant(value.reshape(())))


@register("Range")
def make_range(node: GraphNode, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Return numbers from start to limit."""
    return tf.range(*(tf.reshape(bound, ()) for bound in (start, limit, delta)))


@register("EyeLike")
def make_eye(node: GraphNode, x: Tensor) -> Tensor:
    """Return ones on a diagonal of the shape of x."""
    dtype = x.dtype if node.get("dtype") is None else get_tensor_type(node.get("dtype"))
    rows, columns = tf.unstack(tf.shape(x, tf.int64))
    is_diagonal = tf.range(rows)[:, None] + node.get("k", 0) == tf.range(columns)[None]
    return tf.cast(is_diagonal, dtype)


@register("Shape")
def read_shape(node: GraphNode, x: Tensor) -> Tensor:
    """Return the sizes of a part of the axes; those that are known are constants, which later shapes are made of."""
    axes = range(len(x.shape))[slice(node.get("start", 0), node.get("end"))]
    sizes = [x.shape[axis] for axis in axes]
    if None not in sizes:
        return tf.constant(np.array(sizes, np.int64))
    shape = tf.shape(x, tf.int64)
    return tf.stack([shape[axis] if x.shape[axis] is None else np.int64(x.shape[axis]) for axis in axes])


@register("Size")
def count_values(node: GraphNode, x: Tensor) -> Tensor:
    """Return the number of values."""
    return tf.size(x, tf.int64)


@register("Reshape", folded=(1,))
def change_shape(node: GraphNode, x: Tensor, shape: Tensor) -> Tensor:
    """Return x in another shape; a 0 in it is the size of x in its place, unless `allowzero` is set."""
    if node.get("allowzero", 0) or not isinstance(shape, np.ndarray) or 0 not in shape:
        return tf.reshape(x, shape)
    given = tf.shape(x, tf.int64)
    sizes = [_get_size(x, given, axis) if size == 0 else size for axis, size in enumerate(shape.tolist())]
    return tf.reshape(x, tf.stack([tf.cast(size, tf.int64) for size in sizes]))


def _get_size(x: Tensor, shape: Tensor, axis: int) -> Tensor:
    return shape[axis] if x.shape[axis] is None else x.shape[axis]


@register("Flatten")
def flatten(node: GraphNode, x: Tensor) -> Tensor:
    """Return a matrix: the axes before `axis` are its rows."""
    axis = node.get("axis", 1)
    axis = axis + len(x.shape) if axis < 0 else axis
    columns = x.shape[axis:].num_elements()
    if columns is not None:
        return tf.reshape(x, (-1, columns))
    shape = tf.shape(x)
    return tf.reshape(x, (tf.reduce_prod(shape[:axis]), tf.reduce_prod(shape[axis:])))


@register("Squeeze", fixed=(1,))
def remove_axes(node: GraphNode, x: Tensor, axes: Tensor = None) -> Tensor:
    """Return x without axes of size 1: those that are named, or all that are known to be."""
    if axes is None:
        return tf.squeeze(x, node.get("axes") or [axis for axis, size in enumerate(x.shape) if size == 1])
    return tf.squeeze(x, axes.tolist())


@register("Unsqueeze", fixed=(1,))
def add_axes(node: GraphNode, x: Tensor, axes: Tensor = None) -> Tensor:
    """Return x with new axes of size 1, numbered in the result."""
    chosen = node.get("axes") if axes is None else axes.tolist()
    for axis in sorted(axis % (len(x.shape) + len(chosen)) for axis in chosen):
        x = tf.expand_dims(x, axis)
    return x


@register("Transpose")
def permute_axes(node: GraphNode, x: Tensor) -> Tensor:
    """Return x with its axes in another order, reversed by default."""
    return tf.transpose(x, node.get("perm"))


@register("Concat", layout="axis")
def join(node: GraphNode, *xs: Tensor) -> Tensor:
    """Return tensors joined along an axis."""
    return tf.concat(xs, node.get("axis"))


@register("Split", fixed=(1,))
def split(node: GraphNode, x: Tensor, sizes: Tensor = None) -> Tensor:
    """Return parts of x along an axis: of given sizes, or equal ones, of which the last may be smaller."""
    axis = node.get("axis", 0) % len(x.shape)
    parts = node.get("split") if sizes is None else sizes.tolist()
    if parts is None:
        size, count = x.shape[axis], node.get("num_outputs", node.outputs)
        if size is None:
            raise NotExpressible("of an axis of any size")
        whole = -(-size // count)
        parts = [*[whole] * (count - 1), size - whole * (count - 1)]
    # Slices keep the sizes of the parts, also along an axis whose size is not known.
    bounds = pairwise(accumulate(parts, initial=0))
    return tuple(x[(slice(None),) * axis + (slice(start, stop),)] for start, stop in bounds)


@register("Expand", folded=(1,))
def broadcast(node: GraphNode, x: Tensor, shape: Tensor) -> Tensor:
    """Return x repeated to a shape, whose sizes of 1 are those of x."""
    if isinstance(shape, np.ndarray):
        shape = shape.tolist()
        # The common case keeps known sizes; x may have more axes than the shape.
        if len(shape) <= len(x.shape) and None not in x.shape[len(x.shape) - len(shape) :]:
            return tf.broadcast_to(x, tf.broadcast_dynamic_shape(tf.shape(x), tf.constant(shape, tf.int32)))
    target = tf.cast(shape, tf.int32)
    return tf.broadcast_to(x, tf.broadcast_dynamic_shape(tf.shape(x), target))


@register("Tile", folded=(1,))
def repeat(node: GraphNode, x: Tensor, repeats: Tensor) -> Tensor:
    """Return x repeated along each axis."""
    return tf.tile(x, repeats)


@register("DepthToSpace")
def move_depth_to_space(node: GraphNode, x: Tensor) -> Tensor:
    """Return an image with blocks of pixels from its channels."""
    size = node.get("blocksize")
    channels, height, width = x.shape[1:]
    if None in (channels, height, width):
        raise NotExpressible("of an image of any size")
    if node.get("mode", "DCR") == "DCR":
        x = tf.reshape(x, (-1, size, size, channels // size**2, height, width))
        x = tf.transpose(x, (0, 3, 4, 1, 5, 2))
    else:
        x = tf.reshape(x, (-1, channels // size**2, size, size, height, width))
        x = tf.transpose(x, (0, 1, 4, 2, 5, 3))
    return tf.reshape(x, (-1, channels // size**2, height * size, width * size))
