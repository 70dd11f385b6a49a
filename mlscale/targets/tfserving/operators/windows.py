"""Kernel sizes, strides, dilations and paddings of convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, Tensor


@dataclass(frozen=True)
class Window:
    """The window that moves over the spatial axes.

    Attributes:
        kernel, strides, dilations: of each axis.
        pads: before and after each axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """The places that a window spans, of each axis."""
        return tuple((size - 1) * dilation + 1 for size, dilation in zip(self.kernel, self.dilations, strict=True))

    def add_axis(self) -> Window:
        """Return the window with an axis of size 1 in front: many kernels exist for two axes alone."""
        return Window((1, *self.kernel), (1, *self.strides), (1, *self.dilations), ((0, 0), *self.pads))


def read_window(node: GraphNode, rank: int, kernel: Sequence[int] | None = None) -> Window:
    """Return the window of a node whose input has this number of spatial axes.

    Raises:
        NotExpressible: its padding is not that of torch's exporter, which writes numbers.
    """
    node.refuse_attributes(auto_pad="NOTSET")
    sizes = tuple(kernel or node.get("kernel_shape"))
    strides, dilations = (tuple(node.get(name, [1] * rank)) for name in ("strides", "dilations"))
    flat = node.get("pads", [0] * 2 * rank)
    return Window(sizes, strides, dilations, tuple(zip(flat[:rank], flat[rank:], strict=True)))


def pad_places(x: Tensor, pads: Sequence[tuple[int, int]], value: Tensor = 0) -> Tensor:
    """Return (n, …, channels) with values added before and after each spatial axis."""
    if not any(map(any, pads)):
        return x
    return tf.pad(x, [(0, 0), *pads, (0, 0)], constant_values=tf.cast(value, x.dtype))
