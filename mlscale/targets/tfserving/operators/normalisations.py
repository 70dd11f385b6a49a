"""Normalisations, for inference."""

from __future__ import annotations

import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, Tensor, register


def _normalise(x: Tensor, axes: Tensor, epsilon: float) -> Tensor:
    """Return x with mean 0 and variance 1 over axes."""
    # In two passes: the mean of squares minus the square of the mean loses digits where the mean is large.
    mean = tf.reduce_mean(x, axes, keepdims=True)
    centred = x - mean
    variance = tf.reduce_mean(centred * centred, axes, keepdims=True)
    return centred * tf.math.rsqrt(variance + tf.cast(epsilon, x.dtype))


def _align_channels(values: Tensor, rank: int) -> Tensor:
    """Return values of each channel as (channels, 1, …), which broadcasts to (n, channels, …)."""
    return tf.reshape(values, (-1, *(1,) * (rank - 2)))


@register("BatchNormalization", layout="last")
def normalise_batch(node: GraphNode, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return x normalised by statistics of training."""
    node.refuse_attributes(training_mode=0)
    # One product and one sum, of statistics that are constants.
    factor = scale * tf.math.rsqrt(variance + tf.cast(node.get("epsilon", 1e-5), variance.dtype))
    offset = bias - mean * factor
    return x * factor + offset


@register("LayerNormalization")
def normalise_layer(node: GraphNode, x: Tensor, scale: Tensor, bias: Tensor = None) -> Tensor:
    """Return x normalised over its last axes."""
    node.refuse_attributes(stash_type=1)
    rank = len(x.shape)
    axes = list(range(node.get("axis", -1) % rank, rank))
    y = _normalise(x, axes, node.get("epsilon", 1e-5)) * scale
    return y if bias is None else y + bias


@register("InstanceNormalization")
def normalise_instance(node: GraphNode, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return x normalised over the places of each channel of each sample."""
    rank = len(x.shape)
    y = _normalise(x, list(range(2, rank)), node.get("epsilon", 1e-5))
    return y * _align_channels(scale, rank) + _align_channels(bias, rank)


@register("GroupNormalization")
def normalise_groups(node: GraphNode, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Return x normalised over groups of channels; scale and bias are by channel, or by group up to opset 20."""
    node.refuse_attributes(stash_type=1)
    groups, rank = node.get("num_groups"), len(x.shape)
    shape = tf.shape(x)
    # A group is an axis of its own, so that the statistics are those of the axes after it.
    grouped = tf.reshape(x, tf.concat([shape[:1], [groups, -1], shape[2:]], 0))
    y = _normalise(grouped, list(range(2, rank + 1)), node.get("epsilon", 1e-5))
    if scale.shape[0] != x.shape[1]:
        y = y * _align_channels(scale, rank + 1) + _align_channels(bias, rank + 1)
        return tf.reshape(y, shape)
    return tf.reshape(y, shape) * _align_channels(scale, rank) + _align_channels(bias, rank)
