"""The Open Inference Protocol V2 over HTTP, with JSON and binary tensors, as Triton Inference Server implements it.

https://github.com/kserve/open-inference-protocol and Triton's extensions binary_tensor_data and classification;
statuses and messages are those of Triton 2.51, which answers a request that it can't parse with status 500.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import json_numbers
from mlscale.serve.served_model import ServedModel

DATATYPES = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64"}
PROBABILITIES, LABEL = "probabilities", "label"
_LENGTH = b"inference-header-content-length"
_MAX_ID, _MOST_TENSORS = 200, 64
# The messages of Triton's JSON reader.
_NO_MEMBER, _NO_ARRAY = (
    "attempt to access non-existing object member '{}'",
    "attempt to access JSON non-array as array",
)


class RequestedOutput(NamedTuple):
    """A requested output: its name, True to send it as bytes, and its number of likeliest classes (0: all values)."""

    name: str
    binary: bool
    top: int


class InferRequest(NamedTuple):
    """A parsed inference request.

    Attributes:
        raw: n samples as the model takes them.
        id: the client's; '' where it gave none.
        outputs: the outputs that the client wants.
    """

    raw: NDArray[Any]
    id: str
    outputs: Sequence[RequestedOutput]


def compute_body_limit(model: ServedModel, headers: Mapping[bytes, bytes], max_rows: int) -> int | None:
    """Return the most bytes of a request: its JSON, and the samples after it."""
    length = headers.get(_LENGTH)
    if length is None:
        return model.json_bytes
    return max_rows * model.sample_bytes + min(_parse_json_length(length), model.json_bytes)


def count_json_bytes(headers: Mapping[bytes, bytes], body: bytes | bytearray) -> int:
    """Return the number of bytes of JSON in a request."""
    length = headers.get(_LENGTH)
    return len(body) if length is None else _parse_json_length(length)


def parse_infer_request(model: ServedModel, headers: Mapping[bytes, bytes], body: bytes | bytearray) -> InferRequest:
    """Parse an inference request.

    Raises:
        Refused: it is not what the model takes.
    """
    length = headers.get(_LENGTH)
    if length is None and body:
        return _parse_infer_document(model, _parse_document(model, body), memoryview(b""))
    size = 0 if length is None else _parse_json_length(length)
    if size > len(body):
        raise Refused(f"inference header size should be in range (0, {len(body)}), got: {size}")
    # A JSON length of 0: the body is one raw tensor, and all outputs are binary (Triton's raw binary request).
    if size == 0:
        if not body or len(body) % model.sample_bytes:
            raise Refused(
                f"input byte size mismatch for input 'raw_input' for model '{model.name}'. Expected "
                f"{model.sample_bytes}, got {len(body)}"
            )
        raw = parse_raw_samples(model, body)
        return InferRequest(raw, "", [RequestedOutput(name, True, 0) for name in list_output_names(model)])
    # Views, no copy: the samples stay in the body that was received.
    return _parse_infer_document(model, _parse_document(model, body[:size]), memoryview(body)[size:])


def parse_raw_samples(model: ServedModel, body: bytes | bytearray | memoryview) -> NDArray[Any]:
    """Return samples from bytes in C order, one after the other.

    Raises:
        Refused: not a whole number of samples, or none.
    """
    count, rest = divmod(len(body), model.sample_bytes)
    if rest or not count:
        raise Refused(
            f"{len(body)} bytes are not a whole number of samples: one has {model.sample_bytes} bytes, "
            f"{model.servable.input.dtype} of {list(model.sample_shape)}"
        )
    return np.frombuffer(body, model.servable.input.dtype).reshape(count, *model.sample_shape)


def validate_id(value: object) -> str:
    """Return the id of a request or an event, '' for None.

    Raises:
        Refused: it is not a text, has over 200 characters, or characters that are not printable.
    """
    if value is None:
        return ""
    # `isprintable` excludes lone surrogates, which UTF-8 can't hold, and line ends, which would split a header.
    if not isinstance(value, str) or len(value) > _MAX_ID or not value.isprintable():
        raise Refused(f"an id is a text of at most {_MAX_ID} printable characters")
    return value


def _parse_json_length(stated: bytes) -> int:
    # At most 18 digits fit into 64 bits, and `isdigit` excludes signs.
    if not stated.isdigit() or len(stated) > 18:
        raise Refused(f"Unable to parse Inference-Header-Content-Length, got: {format_value(stated.decode('latin-1'))}")
    return int(stated)


def _parse_document(model: ServedModel, text: bytes | bytearray) -> dict[str, Any]:
    json_numbers.check_expansion(model, text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # as Triton does
        raise Refused(f"failed to parse the request JSON buffer: {error}", 500) from error
    if not isinstance(document, dict):
        raise _build_parse_refusal("inputs", _NO_MEMBER.format("inputs"))
    return document


def _parse_infer_document(model: ServedModel, document: dict[str, Any], tail: memoryview) -> InferRequest:
    port, inputs = model.servable.input, _get_entries(document, "inputs")
    for entry in inputs:
        if _get_text(entry, "name") != port.name:
            raise Refused(f"unexpected inference input '{format_value(entry['name'])}' for model '{model.name}'")
    if len(inputs) > 1:
        raise Refused(f"input '{port.name}' already exists in request")
    if not inputs:
        raise Refused(
            f"expected 1 inputs but got 0 inputs for model '{model.name}'. Got input(s) [], but missing required "
            f"input(s) ['{port.name}']. Please provide all required input(s)."
        )
    binary = bool(_get_parameters(document).get("binary_data_output", False))
    return InferRequest(
        _parse_input(model, inputs[0], tail), validate_id(document.get("id")), _parse_outputs(model, document, binary)
    )


def _parse_input(model: ServedModel, entry: dict[str, Any], tail: memoryview) -> NDArray[Any]:
    """Return the one input, in the model's dtype and shape."""
    port, datatype = model.servable.input, _get_text(entry, "datatype")
    if "shape" not in entry:
        raise _build_parse_refusal("shape", _NO_MEMBER.format("shape"))
    shape = entry["shape"]
    if not isinstance(shape, list):
        raise _build_parse_refusal("shape", _NO_ARRAY)
    if datatype != DATATYPES[port.dtype]:
        raise Refused(
            f"inference input '{port.name}' data-type is '{format_value(datatype)}', but model '{model.name}' expects "
            f"'{DATATYPES[port.dtype]}'"
        )
    # `type`, since true would pass as the int 1.
    whole = len(shape) == len(port.shape) and all(type(size) is int and 0 < size < 2**31 for size in shape)
    if not whole or tuple(shape[1:]) != model.sample_shape:
        raise Refused(
            f"unexpected shape for input '{port.name}' for model '{model.name}'. Expected "
            f"[{','.join(map(str, port.shape))}], got {format_value(shape)}"
        )
    size, data = _get_parameters(entry).get("binary_data_size"), "data" in entry
    # Exactly one of them, as in Triton.
    if (size is None) is not data:
        raise Refused(
            "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
            "'shared_memory_region' in 'parameters'. But "
            + ("set 'data' 'binary_data_size'" if data else "no field is set")
        )
    if data:
        if tail:
            raise Refused(f"unexpected additional input data for model '{model.name}'")
        return _parse_json_data(model, entry["data"], tuple(shape))
    return _parse_tail(model, size, tail, shape[0] * model.sample_bytes)


def _parse_tail(model: ServedModel, size: object, tail: memoryview, expected: int) -> NDArray[Any]:
    """Return the samples in the bytes after the JSON, which states their size."""
    name = model.servable.input.name
    if type(size) is not int or size < 0:
        raise _build_parse_refusal(
            "binary_data_size", "attempt to access JSON non-unsigned-integer as unsigned-integer"
        )
    if len(tail) < size:
        missing = min(size - len(tail), 2**63)
        raise Refused(
            f"unexpected size for input '{name}', expecting {missing} additional bytes for model '{model.name}'"
        )
    if len(tail) > size:
        raise Refused(f"unexpected additional input data for model '{model.name}'")
    if size != expected:
        raise Refused(
            f"input byte size mismatch for input '{name}' for model '{model.name}'. Expected {expected}, got {size}"
        )
    return parse_raw_samples(model, tail)


def _parse_json_data(model: ServedModel, data: object, shape: tuple[int, ...]) -> NDArray[Any]:
    if not isinstance(data, list):
        raise _build_parse_refusal("data", _NO_ARRAY)
    array = json_numbers.parse_array(model, data)
    if array.size != math.prod(shape):
        raise _build_parse_refusal("data", "Shape does not match true shape of 'data' field")
    return json_numbers.cast_samples(model, array.reshape(shape))


def format_value(value: object) -> str:
    """Return a value of a request, short enough for a message."""
    if isinstance(value, list):
        return "[" + ",".join(format_value(item) for item in value[:8] if not isinstance(item, list | dict)) + "]"
    return str(value)[:200] if isinstance(value, str | int | float) and abs(_convert_to_number(value)) < 2**63 else "…"


def _convert_to_number(value: str | float) -> float:
    return 0 if isinstance(value, str) else value


def _build_parse_refusal(name: str, why: str) -> Refused:
    """Return the refusal of a field that can't be parsed, with Triton's status for it, 500."""
    return Refused(f"Unable to parse '{name}': {why}", 500)


def _get_entries(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    if name not in document:
        raise _build_parse_refusal(name, _NO_MEMBER.format(name))
    entries = document[name]
    if not isinstance(entries, list):
        raise _build_parse_refusal(name, _NO_ARRAY)
    if len(entries) > _MOST_TENSORS:
        raise Refused(f"there are {len(entries)} '{name}' in the request JSON, over {_MOST_TENSORS}")
    if not all(isinstance(entry, dict) for entry in entries):
        raise Refused(f"'{name}' in the request JSON is not a list of objects")
    return entries


def _get_text(entry: Mapping[str, Any], name: str) -> str:
    if name not in entry:
        raise _build_parse_refusal(name, _NO_MEMBER.format(name))
    if not isinstance(entry[name], str):
        raise _build_parse_refusal(name, "attempt to access JSON non-string as string")
    return str(entry[name])


def _parse_outputs(model: ServedModel, document: dict[str, Any], binary: bool) -> list[RequestedOutput]:
    entries = _get_entries(document, "outputs") if document.get("outputs") is not None else []
    if not entries:
        return [RequestedOutput(name, binary, 0) for name in list_output_names(model)]
    requested: list[RequestedOutput] = []
    for entry in entries:
        name, parameters = _get_text(entry, "name"), _get_parameters(entry)
        if name not in list_output_names(model):
            raise Refused(f"unexpected inference output '{format_value(name)}' for model '{model.name}'")
        if any(name == other.name for other in requested):  # each would be computed, written and sent again
            raise Refused(f"output '{name}' already exists in request")
        top = parameters.get("classification", 0)
        if type(top) is not int or top < 0 or (top and name == LABEL):
            raise Refused(f"'classification' of output '{name}' is not a number of classes")
        requested.append(
            RequestedOutput(name, bool(parameters.get("binary_data", binary)), min(top, len(model.servable.labels)))
        )
    return requested


def list_output_names(model: ServedModel) -> tuple[str, ...]:
    """Return the names of the outputs: the model's own, and those derived from it."""
    return (model.servable.output.name, PROBABILITIES, LABEL)


def _get_parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refused("'parameters' in the request JSON is not an object")
    return parameters
