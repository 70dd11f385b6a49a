"""The frame of a TFRecord: length, its checksum, data, its checksum.

Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/lib/hash/crc32c.h (the mask).

`tf.train.Example`s are written without TensorFlow.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER_BYTES, FOOTER_BYTES = 12, 4
_MASK_DELTA = 0xA282EAD8


class LostRecordsError(ValueError):
    """A file whose records can't all be read.

    Args:
        message: what is wrong.
        offset: the byte at which the first bad record begins.
        records: whole records before it.
    """

    def __init__(self, message: str, offset: int, records: int) -> None:
        super().__init__(message)
        self.offset, self.records = offset, records


def import_checksum() -> Callable[[bytes], int]:
    """Return the function that computes a CRC-32C.

    Raises:
        MLScaleError: the extra is not installed.
    """
    try:
        from google_crc32c import value
    except ImportError as error:
        raise MLScaleError(
            "the package google-crc32c is not installed",
            where="data=tfrecord",
            why="each record of a TFRecord file has a CRC-32C, which is compared",
            fix="pip install 'mlscale[tfrecord]'",
            exit=Exit.ENVIRONMENT,
        ) from error
    compute: Callable[[bytes], int] = value
    return compute


def compute_masked_checksum(content: bytes) -> int:
    """Return the masked CRC-32C, uint32, as TFRecord files have it."""
    checksum = import_checksum()(content)
    # A checksum of data that holds checksums is weak, hence the mask.
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF


def list_records(handle: int, length: int) -> list[tuple[int, int]]:
    """Return offset and size of the data of every record of an open file of `length` bytes.

    Lengths are compared with their checksums; data is not read.

    Raises:
        LostRecordsError: it is not a TFRecord file, is cut off, or a length is corrupt.
    """
    records: list[tuple[int, int]] = []
    at = 0
    while at < length:
        # Only headers are read; what lies between them may be terabytes.
        header = os.pread(handle, HEADER_BYTES, at)
        if len(header) < HEADER_BYTES:
            raise LostRecordsError(f"it ends within the length of a record, at byte {length:,}", at, len(records))
        size, checksum = struct.unpack("<QI", header)
        # Before it is used: a corrupt length would skip records without a word.
        if checksum != compute_masked_checksum(header[:8]):
            raise LostRecordsError(
                f"the checksum of the length at byte {at:,} is {checksum:08x}, "
                f"and {compute_masked_checksum(header[:8]):08x} fits these bytes",
                at,
                len(records),
            )
        if at + HEADER_BYTES + size + FOOTER_BYTES > length:
            raise LostRecordsError(f"it ends within the record that begins at byte {at:,}", at, len(records))
        records.append((at + HEADER_BYTES, size))
        at += HEADER_BYTES + size + FOOTER_BYTES
    return records


def frame_record(content: bytes) -> bytes:
    """Return a record as a TFRecord file has it."""
    header = struct.pack("<Q", len(content))
    checksums = (struct.pack("<I", compute_masked_checksum(part)) for part in (header, content))
    return header + next(checksums) + content + next(checksums)


def has_right_checksum(framed: bytes) -> bool:
    """Return True if the checksum behind a record's data fits it.

    Args:
        framed: the data, and the four bytes of its checksum.
    """
    content, checksum = framed[:-FOOTER_BYTES], framed[-FOOTER_BYTES:]
    return struct.pack("<I", compute_masked_checksum(content)) == checksum


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
