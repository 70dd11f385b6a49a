"""Losses, which language models give as their score of a text."""

from __future__ import annotations

import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, Tensor, register


@register("SoftmaxCrossEntropyLoss")
def compute_cross_entropy(node: GraphNode, scores: Tensor, labels: Tensor, weights: Tensor = None) -> Tensor:
    """Return the cross-entropy of labels (n, …) under scores (n, classes, …), and the logarithms of their shares."""
    shares = tf.nn.log_softmax(scores, 1)
    return _compute_loss(node, shares, labels, weights), shares


@register("NegativeLogLikelihoodLoss")
def compute_likelihood_loss(node: GraphNode, shares: Tensor, labels: Tensor, weights: Tensor = None) -> Tensor:
    """Return the loss of labels (n, …) under logarithms of shares (n, classes, …)."""
    return _compute_loss(node, shares, labels, weights)


def _compute_loss(node: GraphNode, shares: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    rank = len(shares.shape)
    last = tf.transpose(shares, (0, *range(2, rank), 1))
    ignored = node.get("ignore_index")
    is_counted = tf.ones_like(labels, tf.bool) if ignored is None else tf.not_equal(labels, ignored)
    # A label that is ignored need not be the number of a class.
    known = tf.where(is_counted, labels, tf.zeros_like(labels))
    weight = tf.ones_like(last[..., 0]) if weights is None else tf.gather(weights, known)
    weight = tf.where(is_counted, weight, tf.zeros_like(weight))
    # The weighted mean: divided by the weights of the labels, not by their number.
    losses = -tf.gather(last, known, batch_dims=rank - 1) * weight
    reduction = node.get("reduction", "mean")
    if reduction == "none":
        return losses
    total = tf.reduce_sum(losses)
    return total if reduction == "sum" else total / tf.reduce_sum(weight)
