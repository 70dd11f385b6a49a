"""The parts of a `tf.train.Example` at their offsets, without parsing its values.

An Example is `features`, a map from names to Features; a Feature is one list of bytes, floats or int64s. Source: the
encoding of protocol buffers (protobuf.dev/programming-guides/encoding) and tensorflow/core/example/feature.proto.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
"""Offset and size in a file, in bytes."""

KINDS = {1: "bytes", 2: "float", 3: "int64"}
"""The types of a feature's list, by field number."""

# Wire types.
_VARINT, _I64, _LENGTH, _I32 = 0, 1, 2, 5
_BLOCK = 4096
_MAX_VARINT_BYTES = 10


class WireFormatError(ValueError):
    """Bytes that are not a message of this kind."""


class FileBytes:
    """The bytes of an open file by their offsets. A block is kept, so that small reads side by side cost one."""

    def __init__(self, handle: int) -> None:
        self._handle, self._start, self._block = handle, 0, b""

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes; fewer at the end of the file."""
        at = start - self._start
        if at < 0 or at + size > len(self._block):
            self._block = os.pread(self._handle, max(size, _BLOCK), start)
            self._start, at = start, 0
        return self._block[at : at + size]


class HeldBytes:
    """Bytes in memory, read as a file is."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes; fewer at the end."""
        return self._content[start : start + size]


def find_features(source: FileBytes | HeldBytes, start: int, size: int) -> dict[str, tuple[str, Span]]:
    """Return type and span of each feature's list, by name, of the Example that is at an offset.

    Raises:
        WireFormatError: it is not an Example.
    """
    features: dict[str, tuple[str, Span]] = {}
    for number, at, stop in _iterate_fields(source, start, start + size):
        # The feature lists of a sequence, which an Example has not.
        if number == 2:
            raise WireFormatError("it is a tf.train.SequenceExample, and a tf.train.Example is needed")
        if number != 1:
            continue
        for entry, entry_at, entry_stop in _iterate_fields(source, at, stop):
            if entry == 1:
                # Of an entry that comes twice the later one counts, as in every map of a protocol buffer.
                features.update(_find_feature(source, entry_at, entry_stop))
    return features


def _find_feature(source: FileBytes | HeldBytes, start: int, stop: int) -> dict[str, tuple[str, Span]]:
    """Return one entry of the map; empty if its list has no values."""
    name, kind, span = "", "", (start, 0)
    for number, at, end in _iterate_fields(source, start, stop):
        if number == 1:
            name = source.read(at, end - at).decode("utf-8", "surrogateescape")
        elif number == 2:
            for field, list_at, list_end in _iterate_fields(source, at, end):
                kind, span = KINDS.get(field, ""), (list_at, list_end - list_at)
    return {name: (kind, span)} if kind and span[1] else {}


def _iterate_fields(source: FileBytes | HeldBytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the value of each field of a message; a length is not part of its value."""
    at = start
    while at < stop:
        tag, at = _read_varint(source, at, stop)
        wire = tag & 7
        if wire == _LENGTH:
            size, at = _read_varint(source, at, stop)
            end = at + size
        elif wire == _VARINT:
            end = _read_varint(source, at, stop)[1]
        elif wire in (_I64, _I32):
            end = at + (8 if wire == _I64 else 4)
        else:
            raise WireFormatError(f"it has a field of wire type {wire}, which such messages have not")
        # Else a length that is corrupt would lead into the next record.
        if end > stop:
            raise WireFormatError("one of its fields is longer than it is")
        yield tag >> 3, at, end
        at = end


def _read_varint(source: FileBytes | HeldBytes, at: int, stop: int) -> tuple[int, int]:
    """Return a number and the offset behind it."""
    # Seven bits of each byte, the lowest first; the eighth is set if another byte follows.
    value = 0
    for index, byte in enumerate(source.read(at, min(_MAX_VARINT_BYTES, stop - at))):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise WireFormatError("a number in it does not end")


def decode_bytes_list(content: bytes) -> list[bytes]:
    """Return the values of a BytesList.

    Raises:
        WireFormatError: it is another message.
    """
    return [content[at:end] for number, at, end in _iterate_fields(HeldBytes(content), 0, len(content)) if number == 1]


def decode_int64_list(content: bytes) -> list[int]:
    """Return the values of an Int64List, packed or not.

    Raises:
        WireFormatError: it is another message.
    """
    source, values = HeldBytes(content), []
    for number, at, end in _iterate_fields(source, 0, len(content)):
        if number != 1:
            continue
        while at < end:
            value, at = _read_varint(source, at, end)
            # Negative numbers are stored as if they were unsigned, of 64 bits.
            values.append(value - (1 << 64) if value >= 1 << 63 else value)
    return values


def decode_float_list(content: bytes) -> NDArray[np.float32]:
    """Return the values of a FloatList, packed or not, float32 (n,).

    Raises:
        WireFormatError: it is another message.
    """
    parts = [content[at:end] for number, at, end in _iterate_fields(HeldBytes(content), 0, len(content)) if number == 1]
    if any(len(part) % 4 for part in parts):
        raise WireFormatError("its floats have not four bytes each")
    return np.frombuffer(b"".join(parts), "<f4")
