"""The Open Inference Protocol V2 over HTTP, JSON and binary tensors: what Triton Inference Server speaks.

https://github.com/kserve/open-inference-protocol and Triton's extensions binary_tensor_data, classification and
model_repository; statuses and messages are those of Triton 2.51.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.servable import accepted
from mlscale.serve.model import Model
from mlscale.serve.refused import Refused

DATATYPES = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64"}
EXTENSIONS = ["classification", "model_repository", "binary_tensor_data"]
PROBABILITIES, LABEL = "probabilities", "label"
_LENGTH = b"inference-header-content-length"
_MAX_ID = 200


class Wanted(NamedTuple):
    """An output as the client wants it: by name, as bytes or JSON, as the k likeliest classes or (0) whole."""

    name: str
    binary: bool
    top: int


@dataclass(frozen=True, eq=False)
class Asked:
    """A request for inference.

    Attributes:
        raw: n samples as the model takes them.
        id: the client's; '' where it gave none.
        outputs: what it wants.
    """

    raw: NDArray[Any]
    id: str
    outputs: Sequence[Wanted]


def metadata(model: Model) -> dict[str, Any]:
    """What `GET /v2/models/M` says."""
    given, gives = model.servable.input, model.servable.output
    tensors = [
        (gives.name, "FP32", list(gives.shape)),
        (PROBABILITIES, "FP32", list(gives.shape)),
        (LABEL, "BYTES", [-1]),
    ]
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": given.name, "datatype": DATATYPES[given.dtype], "shape": list(given.shape)}],
        "outputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in tensors],
    }


def asked(model: Model, headers: Mapping[bytes, bytes], body: bytes) -> Asked:
    """Read a request for inference.

    Raises:
        Refused: it is not what the model takes.
    """
    length = headers.get(_LENGTH)
    if length is None:
        return _asked(model, _document(body), b"")
    if not length.isdigit() or int(length) > len(body):
        raise Refused(f"Unable to parse Inference-Header-Content-Length, got: {length.decode('latin-1')}")
    if int(length) == 0:
        raw = from_bytes(model, body)
        return Asked(raw, "", [Wanted(name, True, 0) for name in names(model)])
    return _asked(model, _document(body[: int(length)]), body[int(length) :])


def from_bytes(model: Model, body: bytes) -> NDArray[Any]:
    """Samples in C order, one after the other.

    Raises:
        Refused: not a whole number of samples, or none.
    """
    count, rest = divmod(len(body), model.sample_bytes)
    if rest or not count:
        raise Refused(
            f"{len(body)} bytes are no whole number of samples: one has {model.sample_bytes} bytes, "
            f"{model.servable.input.dtype} of {list(model.sample_shape)}"
        )
    return np.frombuffer(body, model.servable.input.dtype).reshape(count, *model.sample_shape)


def checked_id(value: object) -> str:
    """An id of a request or an event, '' for none.

    Raises:
        Refused: no text, over 200 characters, or not what UTF-8 can hold.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_ID or not value.isprintable():
        raise Refused(f"an id is a text of at most {_MAX_ID} printable characters")
    return value


def _document(text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:  # Triton calls it an error of its own
        raise Refused(f"failed to parse the request JSON buffer: {error}", 500) from error
    if not isinstance(document, dict):
        raise Refused("failed to parse the request JSON buffer: it holds no object", 500)
    return document


def _asked(model: Model, document: dict[str, Any], tail: bytes) -> Asked:
    given, inputs = model.servable.input, document.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(each, dict) for each in inputs):
        raise Refused("Unable to find 'inputs': a list of objects in the request JSON")
    for each in inputs:
        if each.get("name") != given.name:
            raise Refused(f"unexpected inference input '{each.get('name')}' for model '{model.name}'")
    if len(inputs) != 1:
        raise Refused(
            f"expected 1 inputs but got {len(inputs)} inputs for model '{model.name}'. Got input(s) "
            f"{[each.get('name') for each in inputs]}, the model takes ['{given.name}']"
        )
    binary = bool(_parameters(document).get("binary_data_output", False))
    return Asked(_input(model, inputs[0], tail), checked_id(document.get("id")), _outputs(model, document, binary))


def _input(model: Model, entry: dict[str, Any], tail: bytes) -> NDArray[Any]:
    """The one input, in the model's dtype and shape."""
    given, shape, datatype = model.servable.input, entry.get("shape"), entry.get("datatype")
    if datatype != DATATYPES[given.dtype]:
        raise Refused(
            f"inference input '{given.name}' data-type is '{datatype}', but model '{model.name}' expects "
            f"'{DATATYPES[given.dtype]}'"
        )
    whole = isinstance(shape, list) and all(type(size) is int and 0 < size < 2**31 for size in shape)
    if not whole or tuple(shape[1:]) != model.sample_shape:  # type: ignore[index]
        raise Refused(
            f"unexpected shape for input '{given.name}' for model '{model.name}'. Expected "
            f"[{','.join(map(str, given.shape))}], got {json.dumps(shape, separators=(',', ':'))[:200]}"
        )
    size, expected = _parameters(entry).get("binary_data_size"), shape[0] * model.sample_bytes  # type: ignore[index]
    if size is not None:
        if size != expected or len(tail) != expected:
            raise Refused(
                f"input byte size mismatch for input '{given.name}' for model '{model.name}'. Expected {expected}, got "
                f"{len(tail) if size == expected else size}"
            )
        return from_bytes(model, tail)
    if tail:
        raise Refused(f"unexpected additional input data for model '{model.name}'")
    return numbers(model, entry.get("data"), tuple(shape))  # type: ignore[arg-type]


def numbers(model: Model, data: object, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Samples out of JSON: nested lists; flat ones, too, where `shape`, (n, …), is known.

    Raises:
        Refused: they are ragged, no numbers, of another shape, or do not fit the model's dtype.
    """
    given = model.servable.input
    try:
        array = np.asarray(data)
    except (ValueError, RecursionError, OverflowError) as error:
        raise Refused(f"the data of input '{given.name}' is ragged, or no list of numbers") from error
    if array.dtype.kind not in "iuf":
        raise Refused(f"the data of input '{given.name}' is no list of numbers")
    if shape is not None:
        if array.size != np.prod(shape, dtype=object):
            raise Refused(
                f"unable to parse 'data': expected {np.prod(shape, dtype=object)} elements for input '{given.name}', "
                f"got {array.size}"
            )
        array = array.reshape(shape)
    elif array.shape == model.sample_shape:
        array = array[None]
    try:
        return accepted(array, given)
    except MLScaleError as error:
        raise Refused(told(error)) from error


def told(error: MLScaleError) -> str:
    """An error as one sentence for a client."""
    return "; ".join(text for text in (error.what, error.why, error.fix) if text)


def _outputs(model: Model, document: dict[str, Any], binary: bool) -> list[Wanted]:
    wanted = document.get("outputs")
    if wanted is None or wanted == []:
        return [Wanted(name, binary, 0) for name in names(model)]
    if not isinstance(wanted, list) or not all(isinstance(each, dict) for each in wanted):
        raise Refused("'outputs' in the request JSON is no list of objects")
    found = []
    for each in wanted:
        name, said = each.get("name"), _parameters(each)
        if name not in names(model):
            raise Refused(f"unexpected inference output '{name}' for model '{model.name}'")
        top = said.get("classification", 0)
        if type(top) is not int or top < 0 or (top and name == LABEL):
            raise Refused(f"'classification' of output '{name}' is no number of classes")
        found.append(Wanted(name, bool(said.get("binary_data", binary)), min(top, len(model.servable.labels))))
    return found


def names(model: Model) -> tuple[str, ...]:
    """Of the outputs: the model's own, and what is made of it."""
    return (model.servable.output.name, PROBABILITIES, LABEL)


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refused("'parameters' in the request JSON is no object")
    return parameters
