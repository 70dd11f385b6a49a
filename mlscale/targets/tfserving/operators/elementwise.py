"""Operators that compute each value by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, NotExpressible, Tensor, register

_UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": tf.abs,
    "Acos": tf.acos,
    "Acosh": tf.acosh,
    "Asin": tf.asin,
    "Asinh": tf.asinh,
    "Atan": tf.atan,
    "Atanh": tf.atanh,
    "BitwiseNot": tf.bitwise.invert,
    "Ceil": tf.math.ceil,
    "Cos": tf.cos,
    "Cosh": tf.cosh,
    "Erf": tf.math.erf,
    "Exp": tf.exp,
    "Floor": tf.floor,
    "Identity": tf.identity,
    "IsNaN": tf.math.is_nan,
    "Log": tf.math.log,
    "Mish": lambda x: x * tf.tanh(tf.math.softplus(x)),
    "Neg": tf.negative,
    "Not": tf.logical_not,
    "Reciprocal": lambda x: tf.ones_like(x) / x,
    "Relu": tf.nn.relu,
    # Half to even, as in ONNX.
    "Round": tf.round,
    "Sigmoid": tf.sigmoid,
    "Sign": tf.sign,
    "Sin": tf.sin,
    "Sinh": tf.sinh,
    "Softplus": tf.math.softplus,
    "Softsign": tf.nn.softsign,
    "Sqrt": tf.sqrt,
    "Tan": tf.tan,
    "Tanh": tf.tanh,
}
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": tf.add,
    "And": tf.logical_and,
    "BitwiseAnd": tf.bitwise.bitwise_and,
    "BitwiseOr": tf.bitwise.bitwise_or,
    "BitwiseXor": tf.bitwise.bitwise_xor,
    "Equal": tf.equal,
    "Greater": tf.greater,
    "GreaterOrEqual": tf.greater_equal,
    "Less": tf.less,
    "LessOrEqual": tf.less_equal,
    "Mul": tf.multiply,
    "Or": tf.logical_or,
    "Sub": tf.subtract,
    "Xor": tf.math.logical_xor,
}
_VARIADIC: dict[str, Callable[[Any, Any], Any]] = {"Max": tf.maximum, "Min": tf.minimum, "Sum": tf.add}


def _register_functions() -> None:
    for name, unary in _UNARY.items():
        register(name, layout="any")(lambda node, x, unary=unary: unary(x))
    for name, binary in _BINARY.items():
        register(name, layout="any")(lambda node, x, y, binary=binary: binary(x, y))
    for name, step in _VARIADIC.items():
        register(name, layout="any")(lambda node, *xs, step=step: reduce(step, xs))


_register_functions()


@register("Div", layout="any")
def divide(node: GraphNode, x: Tensor, y: Tensor) -> Tensor:
    """Return x / y; of whole numbers rounded towards zero, as in C."""
    return tf.truncatediv(x, y) if x.dtype.is_integer else tf.divide(x, y)


@register("Mod", layout="any")
def compute_remainder(node: GraphNode, x: Tensor, y: Tensor) -> Tensor:
    """Return the remainder, with the sign of the divisor, or with `fmod` of the dividend."""
    return tf.truncatemod(x, y) if node.get("fmod", 0) else tf.math.floormod(x, y)


@register("Pow", layout="any")
def raise_to_power(node: GraphNode, x: Tensor, y: Tensor) -> Tensor:
    """Return x ** y in the dtype of x; the exponent may have another one."""
    # A fraction as exponent would be cut off to a whole number.
    if x.dtype.is_integer and not y.dtype.is_integer:
        return tf.cast(tf.pow(tf.cast(x, y.dtype), y), x.dtype)
    return tf.pow(x, tf.cast(y, x.dtype))


@register("Where", layout="any")
def select_values(node: GraphNode, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return x where the condition is true, else y."""
    return tf.where(condition, x, y)


@register("Clip", layout="any")
def limit_values(node: GraphNode, x: Tensor, low: Tensor = None, high: Tensor = None) -> Tensor:
    """Return x between bounds, each of which may be left out."""
    # The lower bound first: where the bounds cross, all values are the upper one.
    x = x if low is None else tf.maximum(x, low)
    return x if high is None else tf.minimum(x, high)


@register("IsInf", layout="any")
def find_infinite(node: GraphNode, x: Tensor) -> Tensor:
    """Return where x is infinite, of the signs that are looked for."""
    positive, negative = node.get("detect_positive", 1), node.get("detect_negative", 1)
    signs = (x > 0) if not negative else (x < 0) if not positive else tf.ones_like(x, tf.bool)
    return tf.math.is_inf(x) & signs if positive or negative else tf.zeros_like(x, tf.bool)


@register("BitShift", layout="any")
def shift_bits(node: GraphNode, x: Tensor, y: Tensor) -> Tensor:
    """Return x with its bits shifted by y places."""
    # Numbers are unsigned, so that zeros come in from the left.
    shift = tf.bitwise.left_shift if node.get("direction") == "LEFT" else tf.bitwise.right_shift
    return shift(x, y)


@register("Cast", layout="any")
def convert_type(node: GraphNode, x: Tensor) -> Tensor:
    """Return x in another dtype; floats are cut off, not rounded."""
    return _cast(x, get_tensor_type(node.get("to")))


@register("CastLike", layout="any")
def convert_type_like(node: GraphNode, x: Tensor, like: Tensor) -> Tensor:
    """Return x in the dtype of another tensor."""
    return _cast(x, like.dtype)


def get_tensor_type(number: int) -> Tensor:
    """Return TensorFlow's dtype of a number of ONNX's enumeration."""
    from onnx import helper

    return tf.as_dtype(np.dtype(helper.tensor_dtype_to_np_dtype(number)))


def _cast(x: Tensor, dtype: Tensor) -> Tensor:
    # Texts of numbers differ in their last digit, and parsed ones in what is accepted.
    if (x.dtype == tf.string) != (dtype == tf.string):
        raise NotExpressible("between texts and numbers")
    return tf.cast(x, dtype)


@register("Gelu", layout="any")
def compute_gelu(node: GraphNode, x: Tensor) -> Tensor:
    """Return the Gaussian error linear unit, exact or by tanh."""
    return tf.nn.gelu(x, approximate=node.get("approximate", "none") == "tanh")


@register("LeakyRelu", layout="any")
def compute_leaky_relu(node: GraphNode, x: Tensor) -> Tensor:
    """Return x, times a factor where it is negative."""
    return tf.where(x < 0, tf.cast(node.get("alpha", 0.01), x.dtype) * x, x)


@register("PRelu", layout="any")
def compute_prelu(node: GraphNode, x: Tensor, slope: Tensor) -> Tensor:
    """Return x, times the slope where it is negative."""
    return tf.where(x < 0, slope * x, x)


@register("Elu", layout="any")
def compute_elu(node: GraphNode, x: Tensor) -> Tensor:
    """Return the exponential linear unit."""
    return tf.where(x < 0, tf.cast(node.get("alpha", 1.0), x.dtype) * tf.math.expm1(tf.minimum(x, 0)), x)


@register("Celu", layout="any")
def compute_celu(node: GraphNode, x: Tensor) -> Tensor:
    """Return the continuously differentiable exponential linear unit."""
    alpha = tf.cast(node.get("alpha", 1.0), x.dtype)
    return tf.maximum(x, 0) + tf.minimum(alpha * tf.math.expm1(tf.minimum(x, 0) / alpha), 0)


@register("Selu", layout="any")
def compute_selu(node: GraphNode, x: Tensor) -> Tensor:
    """Return the scaled exponential linear unit."""
    alpha = tf.cast(node.get("alpha", 1.67326319217681884765625), x.dtype)
    gamma = tf.cast(node.get("gamma", 1.05070102214813232421875), x.dtype)
    return gamma * tf.where(x < 0, alpha * tf.math.expm1(tf.minimum(x, 0)), x)


@register("HardSigmoid", layout="any")
def compute_hard_sigmoid(node: GraphNode, x: Tensor) -> Tensor:
    """Return a line between 0 and 1."""
    alpha, beta = tf.cast(node.get("alpha", 0.2), x.dtype), tf.cast(node.get("beta", 0.5), x.dtype)
    return tf.minimum(tf.maximum(alpha * x + beta, 0), 1)


@register("HardSwish", layout="any")
def compute_hard_swish(node: GraphNode, x: Tensor) -> Tensor:
    """Return x times a line between 0 and 1."""
    return x * tf.minimum(tf.maximum(x / 6 + 0.5, 0), 1)


@register("Dropout")
def pass_through(node: GraphNode, x: Tensor, ratio: Tensor = None, training: Tensor = None) -> Tensor:
    """Return x: a servable does not train."""
    return x, tf.ones_like(x, tf.bool)
