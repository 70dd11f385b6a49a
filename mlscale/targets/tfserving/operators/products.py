"""Products of matrices."""

from __future__ import annotations

import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, Tensor, register


@register("MatMul")
def multiply_matrices(node: GraphNode, x: Tensor, y: Tensor) -> Tensor:
    """Return the product of matrices as numpy's matmul: a vector is a row on the left and a column on the right."""
    left, right = len(x.shape) == 1, len(y.shape) == 1
    x = x[None] if left else x
    y = y[:, None] if right else y
    # One product of all rows, which is much faster than one for each entry of the batch.
    if len(y.shape) == 2 and len(x.shape) > 2 and x.shape[-1] is not None and y.shape[-1] is not None:
        rows = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), y)
        product = tf.reshape(rows, tf.concat([tf.shape(x)[:-1], [y.shape[-1]]], 0))
        product.set_shape([*x.shape[:-1], y.shape[-1]])
    else:
        product = tf.matmul(x, y)
    if left:
        product = tf.squeeze(product, -2)
    return tf.squeeze(product, -1) if right else product


@register("Gemm")
def multiply_and_add(node: GraphNode, a: Tensor, b: Tensor, c: Tensor = None) -> Tensor:
    """Return alpha · a · b + beta · c, of matrices that may be transposed."""
    # Factors of one, the usual ones, are left out of the graph.
    product = tf.matmul(a, b, bool(node.get("transA", 0)), bool(node.get("transB", 0)))
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    product = product if alpha == 1 else tf.cast(alpha, a.dtype) * product
    if c is None:
        return product
    return product + (c if beta == 1 else tf.cast(beta, a.dtype) * c)


@register("Einsum")
def compute_einsum(node: GraphNode, *xs: Tensor) -> Tensor:
    """Return the sum of products that an equation describes."""
    # ONNX allows spaces in it.
    return tf.einsum(node.get("equation").replace(" ", ""), *xs)
