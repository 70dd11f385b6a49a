"""Pools, of one to three axes; images have channels last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, NotExpressible, Tensor, register
from mlscale.targets.tfserving.operators.windows import Window, pad_places, read_window


@register("MaxPool", layout="last")
def compute_maximum_pool(node: GraphNode, x: Tensor) -> Tensor:
    """Return the maximum of each window."""
    if node.outputs > 1:
        raise NotExpressible("the positions of the maxima")
    window = read_window(node, len(x.shape) - 2)
    pads = _add_partial_windows(node, x, window)
    # The smallest value is never the maximum of a window that has any place of the image.
    padded = pad_places(x, pads, x.dtype.min if x.dtype.is_integer else -np.inf)
    if set(window.dilations) == {1} and x.dtype in (tf.float32, tf.float64, tf.float16):
        return tf.nn.max_pool(padded, window.kernel, window.strides, "VALID")
    return tf.reduce_max(tf.stack(_list_window_parts(padded, window, _get_sizes(x, pads))), 0)


@register("AveragePool", layout="last")
def compute_average_pool(node: GraphNode, x: Tensor) -> Tensor:
    """Return the mean of each window, over its places in the image, or with `count_include_pad` in the padding too."""
    window = read_window(node, len(x.shape) - 2)
    pads = _add_partial_windows(node, x, window)
    total = _compute_means(pad_places(x, pads), window, x, pads)
    if not any(map(any, pads)) or (node.get("count_include_pad", 0) and pads == window.pads):
        return total
    # The share of each window that counts: windows over the edge have fewer places.
    counted = tf.ones_like(x[:1, ..., :1])
    beyond = pads
    if node.get("count_include_pad", 0):
        counted = pad_places(counted, window.pads, 1)
        beyond = tuple((0, after - own) for (_, after), (_, own) in zip(pads, window.pads, strict=True))
    return total / _compute_means(pad_places(counted, beyond), window, x, pads)


def _compute_means(padded: Tensor, window: Window, x: Tensor, pads: Sequence[tuple[int, int]]) -> Tensor:
    if set(window.dilations) == {1}:
        return tf.nn.avg_pool(padded, window.kernel, window.strides, "VALID")
    return tf.reduce_mean(tf.stack(_list_window_parts(padded, window, _get_sizes(x, pads))), 0)


def _get_sizes(x: Tensor, pads: Sequence[tuple[int, int]]) -> list[int]:
    """Return the padded sizes of the spatial axes.

    Raises:
        NotExpressible: one is not known.
    """
    if None in x.shape[1:-1]:
        raise NotExpressible("an image of any size")
    return [size + before + after for size, (before, after) in zip(x.shape[1:-1], pads, strict=True)]


def _list_window_parts(padded: Tensor, window: Window, sizes: list[int]) -> list[Any]:
    """Return for each position of the window the values that all windows have there: for windows with gaps."""
    parts = []
    counts = [(size - reach) // stride for size, reach, stride in zip(sizes, window.reach, window.strides, strict=True)]
    for places in product(*map(range, window.kernel)):
        starts = [position * dilation for position, dilation in zip(places, window.dilations, strict=True)]
        axes = zip(starts, counts, window.strides, strict=True)
        parts.append(padded[(slice(None), *(slice(at, at + count * step + 1, step) for at, count, step in axes))])
    return parts


def _add_partial_windows(node: GraphNode, x: Tensor, window: Window) -> tuple[tuple[int, int], ...]:
    """Return the padding with what `ceil_mode` adds after the image for a last window that is not full."""
    if not node.get("ceil_mode", 0):
        return window.pads
    sizes = _get_sizes(x, window.pads)
    pads = []
    for axis, (before, after) in enumerate(window.pads):
        stride, reach = window.strides[axis], window.reach[axis]
        count = -(-(sizes[axis] - reach) // stride) + 1
        # A window that would begin in the padding after the image is left out.
        if (count - 1) * stride >= sizes[axis] - after:
            count -= 1
        pads.append((before, after + max((count - 1) * stride + reach - sizes[axis], 0)))
    return tuple(pads)


@register("GlobalAveragePool", layout="last")
def compute_global_average(node: GraphNode, x: Tensor) -> Tensor:
    """Return the mean of each channel."""
    return tf.reduce_mean(x, list(range(1, len(x.shape) - 1)), keepdims=True)


@register("GlobalMaxPool", layout="last")
def compute_global_maximum(node: GraphNode, x: Tensor) -> Tensor:
    """Return the maximum of each channel."""
    return tf.reduce_max(x, list(range(1, len(x.shape) - 1)), keepdims=True)
