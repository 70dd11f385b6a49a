"""A value of a graph while it is converted: a tensor of images is moved to channels last only where it has to be."""

from __future__ import annotations

from typing import Any

from mlscale.targets.tfserving.operator_table import Tensor


class GraphValue:
    """A tensor, (n, channels, …) as in ONNX, or (n, …, channels) as TensorFlow's kernels for the CPU compute it.

    Neighbouring operators pass channels last on; a transposition that nothing reads is left out of the graph.

    Args:
        first: the tensor as ONNX has it.
        last: with its second axis moved to the end.
    """

    def __init__(self, first: Tensor = None, last: Tensor = None) -> None:
        self._first, self._last = first, last
        self.is_last = first is None

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len((self._first if self._last is None else self._last).shape)

    def get_first(self) -> Any:
        """Return (n, channels, …)."""
        if self._first is None:
            import tensorflow as tf

            axes = range(self.rank)
            self._first = tf.transpose(self._last, (0, axes[-1], *axes[1:-1]))
        return self._first

    def get_last(self) -> Any:
        """Return (n, …, channels)."""
        if self._last is None:
            import tensorflow as tf

            self._last = tf.transpose(self._first, (0, *range(2, self.rank), 1))
        return self._last

    def restrict_shape(self, sizes: list[int | None]) -> None:
        """State sizes that ONNX knows, in its order, where TensorFlow knows none."""
        moved = [*sizes[:1], *sizes[2:], *sizes[1:2]]
        for tensor, stated in ((self._first, sizes), (self._last, moved)):
            if tensor is not None:
                # ONNX counts a last window that begins in the padding, which no runtime computes.
                known = tensor.shape.as_list()
                tensor.set_shape([size if own is None else own for size, own in zip(stated, known, strict=True)])
