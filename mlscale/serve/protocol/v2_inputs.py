"""Reads the input tensors of V2 requests, from JSON or from the bytes after it.

Reads the fields of V2 requests; statuses and messages are those of Triton's JSON reader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.export.engines.engine import Port
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import json_numbers, v2_codec

FILE = "file"
"""The dtype of a port that takes bytes as they are: a text, or an image."""
DATATYPES = {**v2_codec.DATATYPES, "string": "BYTES", FILE: "BYTES"}
_KNOWN = frozenset(DATATYPES.values()) | {"INT16", "UINT16", "UINT32", "UINT64", "BF16"}


def read_tensors(
    model: str, ports: Sequence[Port], entries: Sequence[Mapping[str, Any]], tail: memoryview
) -> dict[str, NDArray[Any]]:
    """Return the tensors of a request by name, with equally many rows each.

    Args:
        model: the name of the model.
        ports: of each entry.
        entries: of the inputs.
        tail: the bytes after the JSON: binary tensors, in the order of the entries.

    Raises:
        Refused: an entry is not as its port states, or its bytes are more or fewer.
    """
    shapes = [_read_shape(model, port, entry) for port, entry in zip(ports, entries, strict=True)]
    # All sizes before any tensor is read: what is left over is the first thing to report, as in Triton.
    contents: list[memoryview | None] = []
    for port, entry in zip(ports, entries, strict=True):
        content, tail = _split_tail(model, port, entry, tail)
        contents.append(content)
    if tail:
        raise Refused(f"unexpected additional input data for model '{model}'")
    rows = shapes[0][0]
    tensors = {}
    for port, entry, shape, content in zip(ports, entries, shapes, contents, strict=True):
        if shape[0] != rows:
            raise Refused(f"input '{port.name}' batch size does not match other inputs for '{model}'")
        read_json, read_bytes = (
            (_read_json_texts, _read_texts) if DATATYPES[port.dtype] == "BYTES" else (_read_json_numbers, _read_numbers)
        )
        tensors[port.name] = (
            read_json(port, entry["data"], shape) if content is None else read_bytes(model, port, content, shape)
        )
    return tensors


def _read_shape(model: str, port: Port, entry: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of an input, after checking its type."""
    datatype = get_text(entry, "datatype")
    if "shape" not in entry:
        raise build_parse_refusal("shape", NO_MEMBER.format("shape"))
    shape = entry["shape"]
    if not isinstance(shape, list):
        raise build_parse_refusal("shape", NO_ARRAY)
    # True would pass as the int 1.
    if not all(type(size) is int and size >= 0 for size in shape):
        raise build_parse_refusal("shape", NO_COUNT)
    if datatype not in _KNOWN:
        raise Refused(f"invalid datatype for input {port.name}")
    if datatype != DATATYPES[port.dtype]:
        raise Refused(
            f"inference input '{port.name}' data-type is '{format_value(datatype)}', but model '{model}' expects "
            f"'{DATATYPES[port.dtype]}'"
        )
    # Triton's tensors have a dimension after the batch: what is one value here is [1] there.
    if len(port.shape) == 1 and len(shape) == 2 and shape[1] == 1:
        shape = shape[:1]
    whole = len(shape) == len(port.shape) and all(0 < size < 2**31 for size in shape)
    if not whole or any(stated not in (-1, size) for stated, size in zip(port.shape[1:], shape[1:], strict=True)):
        raise Refused(
            f"unexpected shape for input '{port.name}' for model '{model}'. Expected "
            f"[{','.join(map(str, port.shape))}], got {format_value(entry['shape'])}"
        )
    return tuple(shape)


def _split_tail(
    model: str, port: Port, entry: Mapping[str, Any], tail: memoryview
) -> tuple[memoryview | None, memoryview]:
    """Return the bytes of an input, None where its data is in the JSON, and the bytes after it."""
    size, data = get_parameters(entry).get("binary_data_size"), "data" in entry
    # Exactly one of them, as in Triton.
    if (size is None) is not data:
        raise Refused(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
            "'shared_memory_region' in 'parameters'. But "
            + ("set 'data' 'binary_data_size'" if data else "no field is set")
        )
    if data:
        return None, tail
    if type(size) is not int or size < 0:
        raise build_parse_refusal("binary_data_size", NO_COUNT)
    if len(tail) < size:
        missing = min(size - len(tail), 2**63)
        raise Refused(
            f"unexpected size for input '{port.name}', expecting {missing} additional bytes for model '{model}'"
        )
    return tail[:size], tail[size:]


def _read_numbers(model: str, port: Port, content: memoryview, shape: tuple[int, ...]) -> NDArray[Any]:
    # A view, no copy: the samples stay in the body that was received.
    expected = math.prod(shape) * np.dtype(port.dtype).itemsize
    if len(content) != expected:
        raise _build_mismatch(model, port, expected, len(content))
    if port.dtype == "bool":
        return np.frombuffer(content, np.uint8).reshape(shape).astype(np.bool_)
    return np.frombuffer(content, port.dtype).reshape(shape)


def _read_texts(model: str, port: Port, content: memoryview, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a BYTES tensor: of each element its length (4 bytes, little endian) and its content."""
    count, at, texts = math.prod(shape), 0, []
    # Before the loop: a shape may state more elements than there are bytes.
    if len(content) < 4 * count:
        raise _build_mismatch(model, port, 4 * count, len(content))
    for _ in range(count):
        start = at + 4
        at = start + int.from_bytes(content[at:start], "little")
        if at > len(content):
            break
        texts.append(bytes(content[start:at]))
    if at != len(content) or len(texts) != count:
        raise Refused(f"the {count} elements of input '{port.name}' for model '{model}' do not end with its data")
    if port.dtype == FILE:
        return _create_objects(texts, shape)
    try:
        return _create_objects([text.decode() for text in texts], shape)
    except UnicodeDecodeError as error:
        raise _build_encoding_refusal(port) from error


def _read_json_numbers(port: Port, data: object, shape: tuple[int, ...]) -> NDArray[Any]:
    if not isinstance(data, list):
        raise build_parse_refusal("data", NO_ARRAY)
    array = json_numbers.parse_array(port, data)
    if array.size != math.prod(shape):
        raise _build_count_refusal()
    return json_numbers.cast_samples(port, array.reshape(shape))


def _read_json_texts(port: Port, data: object, shape: tuple[int, ...]) -> NDArray[Any]:
    if not isinstance(data, list):
        raise build_parse_refusal("data", NO_ARRAY)
    texts: list[Any] = data
    while texts and set(map(type, texts)) == {list}:
        texts = list(chain.from_iterable(texts))
    if not set(map(type, texts)) <= {str}:
        raise Refused(f"the data of input '{port.name}' is ragged, or no list of texts")
    if len(texts) != math.prod(shape):
        raise _build_count_refusal()
    if port.dtype != FILE and not all(map(_is_utf8, texts)):
        raise _build_encoding_refusal(port)
    return _create_objects(texts, shape)


def _create_objects(texts: Sequence[str | bytes], shape: tuple[int, ...]) -> NDArray[Any]:
    # Not np.array(texts), which would turn equally long bytes into one array of characters.
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def _is_utf8(text: str) -> bool:
    # JSON can hold half of a surrogate pair, which ONNX Runtime does not take.
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _build_mismatch(model: str, port: Port, expected: int, given: int) -> Refused:
    return Refused(
        f"input byte size mismatch for input '{port.name}' for model '{model}'. Expected {expected}, got {given}"
    )


def _build_count_refusal() -> Refused:
    return build_parse_refusal("data", "Shape does not match true shape of 'data' field")


def _build_encoding_refusal(port: Port) -> Refused:
    return Refused(f"the data of input '{port.name}' is not UTF-8")


NO_MEMBER, NO_ARRAY = (
    "attempt to access non-existing object member '{}'",
    "attempt to access JSON non-array as array",
)
NO_COUNT = "attempt to access JSON non-unsigned-integer as unsigned-integer"
_MOST_TENSORS = 64


def get_entries(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects.

    Raises:
        Refused: it is absent, too long, or something else.
    """
    if name not in document:
        raise build_parse_refusal(name, NO_MEMBER.format(name))
    entries = document[name]
    if not isinstance(entries, list):
        raise build_parse_refusal(name, NO_ARRAY)
    if len(entries) > _MOST_TENSORS:
        raise Refused(f"there are {len(entries)} '{name}' in the request JSON, over {_MOST_TENSORS}")
    if not all(isinstance(entry, dict) for entry in entries):
        raise Refused(f"'{name}' in the request JSON is not a list of objects")
    return entries


def get_text(entry: Mapping[str, Any], name: str) -> str:
    """Return a text.

    Raises:
        Refused: it is absent, or something else.
    """
    if name not in entry:
        raise build_parse_refusal(name, NO_MEMBER.format(name))
    if not isinstance(entry[name], str):
        raise build_parse_refusal(name, "attempt to access JSON non-string as string")
    return str(entry[name])


def get_optional_text(entry: Mapping[str, Any], name: str) -> str | None:
    """Return a text; None where it is absent.

    Raises:
        Refused: it is something else.
    """
    return None if entry.get(name) is None else get_text(entry, name)


def get_parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a request or of a tensor; none where they are absent.

    Raises:
        Refused: they are not an object.
    """
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refused("'parameters' in the request JSON is not an object")
    return parameters


def format_value(value: object) -> str:
    """Return a value of a request, short enough for a message."""
    if isinstance(value, list):
        return "[" + ",".join(format_value(item) for item in value[:8] if not isinstance(item, list | dict)) + "]"
    return str(value)[:200] if isinstance(value, str | int | float) and abs(_convert_to_number(value)) < 2**63 else "…"


def build_parse_refusal(name: str, why: str) -> Refused:
    """Return the refusal of a field that can't be parsed, with Triton's status for it, 500."""
    return Refused(f"Unable to parse '{name}': {why}", 500)


def _convert_to_number(value: str | float) -> float:
    return 0 if isinstance(value, str) else value
