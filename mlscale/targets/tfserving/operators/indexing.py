"""Operators that pick values by position, and those that add values at the edges.

Operators that write values to positions of a tensor.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, NotExpressible, Tensor, register

_FURTHEST = 2**31 - 1  # ONNX writes 'to the end' as the largest number of 64 bits


def wrap_negative(indices: Tensor, size: Tensor) -> Tensor:
    """Return indices from 0 on; negative ones count from the end, which TensorFlow refuses."""
    size = tf.cast(size, indices.dtype)
    return tf.where(indices < 0, indices + size, indices)


@register("Gather", folded=(1,))
def gather(node: GraphNode, x: Tensor, indices: Tensor) -> Tensor:
    """Return the entries of an axis at given positions."""
    axis = node.get("axis", 0) % len(x.shape)
    if isinstance(indices, np.ndarray) and (indices >= 0).all():
        return tf.gather(x, indices, axis=axis)
    size = tf.shape(x, tf.int64)[axis] if x.shape[axis] is None else x.shape[axis]
    return tf.gather(x, wrap_negative(tf.convert_to_tensor(indices), size), axis=axis)


@register("GatherElements")
def gather_elements(node: GraphNode, x: Tensor, indices: Tensor) -> Tensor:
    """Return for each index the value at that place of an axis, and at its own place of the other ones."""
    return tf.gather_nd(x, build_positions(x, indices, node.get("axis", 0)))


def build_positions(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """Return the positions in x of the places of `indices`, int64 (…, axes), of which one axis is `indices` itself."""
    axis %= len(x.shape)
    shape, sizes = tf.shape(x, tf.int64), tf.shape(indices, tf.int64)
    places = [tf.range(sizes[number]) for number in range(len(x.shape))]
    grid = tf.meshgrid(*places, indexing="ij")
    grid[axis] = wrap_negative(tf.cast(indices, tf.int64), shape[axis])
    return tf.stack(grid, -1)


@register("GatherND")
def gather_nd(node: GraphNode, x: Tensor, indices: Tensor) -> Tensor:
    """Return the values at given positions."""
    depth, skipped = indices.shape[-1], node.get("batch_dims", 0)
    if depth is None:
        raise NotExpressible("positions of any number of axes")
    sizes = tf.shape(x, tf.int64)[skipped : skipped + depth]
    return tf.gather_nd(x, wrap_negative(indices, sizes), batch_dims=skipped)


@register("Slice", folded=(1, 2, 3, 4))
def cut(node: GraphNode, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor = None, steps: Tensor = None) -> Tensor:
    """Return a part of x; bounds outside of it are moved to its edges."""
    count = next((values.shape[0] for values in (starts, ends, axes) if values is not None and values.shape[0]), 0)
    chosen = np.arange(count) if axes is None else axes
    steps = np.ones(count, np.int64) if steps is None else steps
    if not isinstance(chosen, np.ndarray) or not isinstance(steps, np.ndarray):
        raise NotExpressible("axes or steps that are computed")
    slices = [slice(None)] * len(x.shape)
    for entry, axis in enumerate(chosen.tolist()):
        start, end = (_read_bound(bounds, entry) for bounds in (starts, ends))
        slices[axis] = _build_slice(start, end, int(steps[entry]), x.shape[axis])
    return x[tuple(slices)]


def _read_bound(bounds: Tensor, entry: int) -> Tensor:
    if isinstance(bounds, np.ndarray):
        return int(np.clip(bounds[entry], -_FURTHEST, _FURTHEST))
    # Computed bounds may be as large as a number of 64 bits, which the slice's own sum would overflow.
    return tf.clip_by_value(bounds[entry], -_FURTHEST, _FURTHEST)


def _build_slice(start: Tensor, end: Tensor, step: int, size: int | None) -> slice:
    if not isinstance(start, int) or not isinstance(end, int):
        return slice(start, end, step)
    if size is None:
        # 'To the end' is a large number in ONNX, with the sign of the direction.
        is_open = end >= _FURTHEST if step > 0 else end <= -_FURTHEST
        return slice(start, None if is_open else end, step)
    start, end, step = slice(start, end, step).indices(size)
    return slice(start, None if end < 0 else end, step)


@register("Pad", folded=(1, 2, 3))
def add_edges(node: GraphNode, x: Tensor, pads: Tensor, value: Tensor = None, axes: Tensor = None) -> Tensor:
    """Return x with values added at its edges, or with some cut off where their number is negative."""
    mode = node.get("mode", "constant")
    pairs = _read_pads(pads, axes, len(x.shape))
    if mode == "constant":
        filler = tf.zeros((), x.dtype) if value is None else tf.reshape(tf.cast(value, x.dtype), ())
        if not isinstance(pairs, np.ndarray):
            return tf.pad(x, pairs, constant_values=filler)
        x = x[tuple(slice(max(-before, 0), -max(-after, 0) or None) for before, after in pairs.tolist())]
        return tf.pad(x, np.maximum(pairs, 0), constant_values=filler) if (pairs > 0).any() else x
    if not isinstance(pairs, np.ndarray):
        raise NotExpressible(f"mode={mode} by numbers that are computed")
    for axis, (before, after) in enumerate(pairs.tolist()):
        if before or after:
            x = tf.gather(x, _find_sources(mode, tf.shape(x)[axis], before, after), axis=axis)
    return x


def _read_pads(pads: Tensor, axes: Tensor, rank: int) -> Tensor:
    """Return the numbers before and after each axis, (rank, 2)."""
    if axes is None:
        return pads.reshape(2, -1).T if isinstance(pads, np.ndarray) else tf.transpose(tf.reshape(pads, (2, -1)))
    if not isinstance(axes, np.ndarray) or not isinstance(pads, np.ndarray):
        raise NotExpressible("axes that are computed")
    pairs = np.zeros((rank, 2), np.int64)
    pairs[axes] = pads.reshape(2, -1).T
    return pairs


def _find_sources(mode: str, size: Tensor, before: int, after: int) -> Tensor:
    """Return the position that each entry of a padded axis repeats."""
    places = tf.range(-before, size + after)
    if mode == "edge":
        return tf.clip_by_value(places, 0, size - 1)
    if mode == "wrap":
        return tf.math.floormod(places, size)
    if mode == "reflect":
        period = tf.maximum(2 * (size - 1), 1)
        turned = tf.math.floormod(places, period)
        return tf.minimum(turned, period - turned)
    raise NotExpressible(f"mode={mode}")


@register("Trilu", folded=(1,))
def keep_triangle(node: GraphNode, x: Tensor, k: Tensor = None) -> Tensor:
    """Return x with zeros above the k-th diagonal, or below it."""
    shift = 0 if k is None else tf.cast(tf.reshape(k, ()), tf.int64)
    shape = tf.shape(x, tf.int64)
    distance = tf.range(shape[-1])[None] - tf.range(shape[-2])[:, None]
    is_kept = distance >= shift if node.get("upper", 1) else distance <= shift
    return tf.where(is_kept, x, tf.zeros_like(x))


@register("NonZero")
def find_nonzero(node: GraphNode, x: Tensor) -> Tensor:
    """Return the positions of values that are not zero, int64 (axes, n)."""
    return tf.transpose(tf.where(tf.not_equal(x, tf.zeros_like(x))))


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
