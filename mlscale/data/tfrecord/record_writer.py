"""Write `tf.train.Example`s to TFRecord files, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from mlscale.data.tfrecord.record_framing import frame_record

Value = bytes | str | int | float
"""A value of a feature; a text is written as UTF-8."""


def serialise_example(features: Mapping[str, Value | Sequence[Value]]) -> bytes:
    """Return a serialised `tf.train.Example`, the same bytes for the same features.

    Args:
        features: by name, one value or several of one type: bytes or text, whole numbers (int64), or floats (float32).

    Raises:
        TypeError: a value of another type, or values of several types in one feature.
    """
    example = _build_message_type()()
    for name, value in features.items():
        values = [value] if isinstance(value, bytes | str | int | float) else list(value)
        kinds = {_find_kind(item) for item in values}
        if len(kinds) > 1:
            raise TypeError(f"the feature {name!r} has values of several types: {', '.join(sorted(kinds))}")
        feature = example.features.feature[name]
        for kind in kinds:
            getattr(feature, f"{kind}_list").value.extend(
                item.encode() if isinstance(item, str) else item for item in values
            )
    # Deterministic: the order of a map is free otherwise.
    content: bytes = example.SerializeToString(deterministic=True)
    return content


def build_record(features: Mapping[str, Value | Sequence[Value]]) -> bytes:
    """Return an Example as a record of a TFRecord file; a file is nothing but its records.

    Raises:
        TypeError: see `serialise_example`.
    """
    return frame_record(serialise_example(features))


def _find_kind(value: object) -> str:
    # bool is a subclass of int, and is written as 0 or 1, as TensorFlow does.
    for kind, types in (("bytes", bytes | str), ("int64", int), ("float", float)):
        if isinstance(value, types):
            return kind
    raise TypeError(f"a feature holds bytes, text, whole numbers or floats, and {value!r} is {type(value).__name__}")


@cache
def _build_message_type() -> Any:
    """Return the class of messages of tensorflow/core/example/{example,feature}.proto, built here."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="mlscale/example.proto", package="mlscale", syntax="proto3")

    def add_message(name: str, *fields: tuple[str, int, str], repeated: bool = False) -> Any:
        message = file.message_type.add(name=name)
        for number, (field, kind, type_name) in enumerate(fields, 1):
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name or None)
        return message

    add_message("BytesList", ("value", kinds.TYPE_BYTES, ""), repeated=True)
    add_message("FloatList", ("value", kinds.TYPE_FLOAT, ""), repeated=True)
    add_message("Int64List", ("value", kinds.TYPE_INT64, ""), repeated=True)
    add_message(
        "Feature",
        *((f"{name}_list", kinds.TYPE_MESSAGE, f".mlscale.{name.title()}List") for name in ("bytes", "float", "int64")),
    )
    features = add_message("Features", ("feature", kinds.TYPE_MESSAGE, ".mlscale.Features.FeatureEntry"), repeated=True)
    # A map is a repeated message of keys and values on the wire.
    entry = features.nested_type.add(name="FeatureEntry", options=descriptor_pb2.MessageOptions(map_entry=True))
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_OPTIONAL, type_name=".mlscale.Feature"
    )
    add_message("Example", ("features", kinds.TYPE_MESSAGE, ".mlscale.Features"))
    # A pool of its own: TensorFlow, if it is imported too, registers its messages in the default one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mlscale.Example"))
