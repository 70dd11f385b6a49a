"""Convolutions and transposed convolutions, of one to three axes and in groups.

TensorFlow's kernels for the CPU take channels last.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, NotExpressible, Tensor, register
from mlscale.targets.tfserving.operators.windows import Window, pad_places, read_window


@register("Conv", folded=(1,), layout="last")
def compute_convolution(node: GraphNode, x: Tensor, kernel: Tensor, bias: Tensor = None) -> Tensor:
    """Return the convolution of x, (n, …, channels), with kernels (out, in / groups, …)."""
    window = read_window(node, len(x.shape) - 2, kernel.shape[2:])
    groups = node.get("group", 1)
    # Constants are transposed here, once.
    transpose = np.transpose if isinstance(kernel, np.ndarray) else tf.transpose
    filters = transpose(kernel, (*range(2, len(kernel.shape)), 1, 0))
    if len(window.kernel) == 1:
        # TensorFlow's own convolution of one axis is one of two, too.
        x, filters = x[:, None], filters[None]
        y = _compute_last(x, filters, window.add_axis(), groups)[:, 0]
    else:
        y = _compute_last(x, filters, window, groups)
    # No `bias_add`: with a depthwise kernel and a sum, TensorFlow's optimizer makes a node without an operator of it,
    # and without oneDNN it fuses one with a kernel that takes no groups.
    return y if bias is None else y + bias


def _compute_last(x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
    """Return the convolution of (n, …, channels) with filters (…, in / groups, out)."""
    if len(window.kernel) == 3:
        return _compute_volume(x, filters, window, groups)
    per_group, outputs = filters.shape[2:]
    one_stride = len(set(window.strides)) == 1
    # TensorFlow's depthwise kernel has one stride, and only without one may it have dilations.
    if groups > 1 and per_group == 1 and one_stride and (window.strides[0] == 1 or set(window.dilations) == {1}):
        depthwise = tf.reshape(filters, (*filters.shape[:2], groups, outputs // groups))
        padded = pad_places(x, window.pads)
        return tf.nn.depthwise_conv2d(padded, depthwise, (1, *window.strides, 1), "VALID", dilations=window.dilations)
    # The kernel finds the number of groups by the channels of the filters.
    pads = [(0, 0), *window.pads, (0, 0)]
    return tf.nn.conv2d(x, filters, window.strides, pads, dilations=window.dilations)


def _compute_volume(x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
    if set(window.dilations) != {1}:
        raise NotExpressible("dilations along three axes")
    if groups > 1:
        parts = zip(tf.split(x, groups, -1), tf.split(filters, groups, -1), strict=True)
        return tf.concat([_compute_volume(part, filter_part, window, 1) for part, filter_part in parts], -1)
    return tf.nn.conv3d(pad_places(x, window.pads), filters, (1, *window.strides, 1), "VALID")


@register("ConvTranspose", fixed=(1,), layout="last")
def compute_transposed(node: GraphNode, x: Tensor, kernel: Tensor, bias: Tensor = None) -> Tensor:
    """Return the transposed convolution of x, (n, …, channels), with kernels (in, out / groups, …)."""
    node.refuse_attributes(output_shape=None)
    rank = len(kernel.shape) - 2
    window = read_window(node, len(x.shape) - 2, kernel.shape[2:])
    extra = tuple(node.get("output_padding", [0] * rank))
    filters = _spread_filters(kernel.transpose(*range(2, rank + 2), 1, 0), window.dilations)
    if rank == 1:
        x, filters, extra = x[:, None], filters[None], (0, *extra)
        window = window.add_axis()
    groups = node.get("group", 1)
    parts = zip(tf.split(x, groups, -1), np.split(filters, groups, -1), strict=True)
    y = tf.concat([_compute_transposed_last(part, filter_part, window, extra) for part, filter_part in parts], -1)
    y = y[:, 0] if rank == 1 else y
    return y if bias is None else tf.nn.bias_add(y, bias)


def _spread_filters(filters: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """Return filters (…, out, in) with zeros in their gaps: TensorFlow's kernel for the CPU takes no dilations."""
    for axis, dilation in enumerate(dilations):
        if dilation > 1:
            shape = list(filters.shape)
            shape[axis] = (shape[axis] - 1) * dilation + 1
            spread = np.zeros(shape, filters.dtype)
            spread[(slice(None),) * axis + (slice(None, None, dilation),)] = filters
            filters = spread
    return filters


def _compute_transposed_last(x: Tensor, filters: Tensor, window: Window, extra: tuple[int, ...]) -> Tensor:
    rank = len(window.kernel)
    shape = tf.shape(x)
    sizes = [
        (_get_size(x, shape, axis + 1) - 1) * stride + reach + more
        for axis, (stride, reach, more) in enumerate(zip(window.strides, window.reach, extra, strict=True))
    ]
    transpose = tf.nn.conv2d_transpose if rank == 2 else tf.nn.conv3d_transpose
    full = transpose(x, filters, tf.stack([shape[0], *sizes, filters.shape[-2]]), window.strides, "VALID")
    # The padding of a transposed convolution is what is cut off its edges.
    cuts = [slice(before, -after or None) for before, after in window.pads]
    return full[(slice(None), *cuts)]


def _get_size(x: Tensor, shape: Tensor, axis: int) -> Tensor:
    return shape[axis] if x.shape[axis] is None else x.shape[axis]
