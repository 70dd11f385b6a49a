"""Texts and numbers by a table: the categories of a table's columns."""

from __future__ import annotations

import tensorflow as tf

from mlscale.targets.tfserving.operator_table import GraphNode, NotExpressible, Tensor, register

_KEYS = (("keys_strings", tf.string), ("keys_int64s", tf.int64))
# Attribute, dtype, and the attribute and the default of a key that is not in the table.
_VALUES = (
    ("values_strings", tf.string, "default_string", b"_Unused"),
    ("values_int64s", tf.int64, "default_int64", -1),
    ("values_floats", tf.float32, "default_float", -0.0),
)


@register("ai.onnx.ml.LabelEncoder")
def look_up_labels(node: GraphNode, x: Tensor) -> Tensor:
    """Return the value of each key."""
    attributes = node.attributes
    keys = [tf.constant(attributes[name], dtype) for name, dtype in _KEYS if name in attributes]
    tables = [
        (tf.constant(attributes[name], dtype), tf.constant(attributes.get(other, default), dtype))
        for name, dtype, other, default in _VALUES
        if name in attributes
    ]
    if not keys or not tables:
        raise NotExpressible(f"the attributes {', '.join(sorted(attributes))}")
    # Compared, not looked up in a table of TensorFlow's: that is a resource, which a server has to initialise.
    is_key = tf.equal(x[..., None], keys[0])
    values, default = tables[0]
    selected = tf.gather(values, tf.argmax(tf.cast(is_key, tf.int32), -1))
    return tf.where(tf.reduce_any(is_key, -1), selected, default)
