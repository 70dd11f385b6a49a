"""Operators that combine the values along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, Tensor, register

_Reduce = Callable[..., Any]


def _reduce_extreme(numbers: _Reduce, flags: _Reduce) -> _Reduce:
    def reduce(x: Tensor, axes: Tensor, keepdims: bool) -> Tensor:
        return (flags if x.dtype == tf.bool else numbers)(x, axes, keepdims)

    return reduce


_REDUCTIONS: dict[str, _Reduce] = {
    "ReduceL1": lambda x, axes, keepdims: tf.reduce_sum(tf.abs(x), axes, keepdims),
    "ReduceL2": lambda x, axes, keepdims: tf.sqrt(tf.reduce_sum(x * x, axes, keepdims)),
    "ReduceLogSumExp": tf.reduce_logsumexp,
    "ReduceMax": _reduce_extreme(tf.reduce_max, tf.reduce_any),
    "ReduceMean": tf.reduce_mean,
    "ReduceMin": _reduce_extreme(tf.reduce_min, tf.reduce_all),
    "ReduceProd": tf.reduce_prod,
    "ReduceSum": tf.reduce_sum,
}


def _register_reductions() -> None:
    for name, function in _REDUCTIONS.items():
        register(name, fixed=(1,))(
            lambda node, x, axes=None, function=function: _reduce(node, x, axes, function),
        )


def _reduce(node: GraphNode, x: Tensor, axes: Tensor, function: _Reduce) -> Tensor:
    """Return x reduced over its axes: all of them, or with `noop_with_empty_axes` none, where no axes are given."""
    chosen = node.get("axes", []) if axes is None else axes.tolist()
    if not chosen and node.get("noop_with_empty_axes", 0):
        return x
    return function(x, list(chosen) or None, bool(node.get("keepdims", 1)))


_register_reductions()


@register("ArgMax", "ArgMin")
def find_extreme(node: GraphNode, x: Tensor) -> Tensor:
    """Return the position of the largest or smallest value of an axis, int64."""
    axis = node.get("axis", 0) % len(x.shape)
    find = tf.argmax if node.operator == "ArgMax" else tf.argmin
    if node.get("select_last_index", 0):
        places = tf.shape(x, tf.int64)[axis] - 1 - find(tf.reverse(x, [axis]), axis)
    else:
        places = find(x, axis)
    return tf.expand_dims(places, axis) if node.get("keepdims", 1) else places


@register("CumSum", fixed=(1,))
def accumulate(node: GraphNode, x: Tensor, axis: Tensor) -> Tensor:
    """Return the sums of the values up to each place."""
    exclusive, backwards = bool(node.get("exclusive", 0)), bool(node.get("reverse", 0))
    return tf.cumsum(x, int(axis.reshape(())), exclusive, backwards)


@register("TopK")
def select_largest(node: GraphNode, x: Tensor, count: Tensor) -> Tensor:
    """Return the largest or smallest values of an axis in order, and their positions; of equal ones the first."""
    axis, rank = node.get("axis", -1) % len(x.shape), len(x.shape)
    # TensorFlow sorts along the last axis alone.
    order = [*(number for number in range(rank) if number != axis), axis]
    # By its own inverse: an axis is moved to the end, where TensorFlow looks for it.
    inverse = sorted(range(rank), key=order.__getitem__)
    keys = last = tf.transpose(x, order) if axis != rank - 1 else x
    if not node.get("largest", 1):
        # The complement reverses the order of whole numbers; the smallest of them has no negative.
        keys = tf.bitwise.invert(keys) if x.dtype.is_integer else -keys
    places = tf.math.top_k(keys, tf.cast(tf.reshape(count, ()), tf.int32), sorted=True).indices
    values = tf.gather(last, places, batch_dims=rank - 1)
    if axis != rank - 1:
        values, places = tf.transpose(values, inverse), tf.transpose(places, inverse)
    return values, tf.cast(places, tf.int64)


@register("Softmax")
def compute_softmax(node: GraphNode, x: Tensor) -> Tensor:
    """Return shares of an axis."""
    return tf.nn.softmax(x, node.get("axis", -1))


@register("LogSoftmax")
def compute_log_softmax(node: GraphNode, x: Tensor) -> Tensor:
    """Return the logarithms of shares of an axis."""
    return tf.nn.log_softmax(x, node.get("axis", -1))
