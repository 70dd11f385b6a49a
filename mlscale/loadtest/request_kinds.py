"""Builds the requests of each protocol, and checks the answers to them. Needs numpy only."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
PROTOCOLS = ("bytes", "json", "v2", "v2_json")
_HEADER = "Inference-Header-Content-Length"
_SUM = 1e-3
"""The largest difference between the sum of a sample's probabilities and 1; float32 in JSON keeps seven digits."""


class InvalidResponse(Exception):  # noqa: N818 - the answer is, not the program
    """An invalid answer; the message is the reason."""


@dataclass(frozen=True)
class LoadRequest:
    """A request to send.

    Attributes:
        path: of the URL, for POST.
        headers: all but the length.
        body: the bytes to send.
        count: the number of its samples.
        labels: their correct classes; None where they are not known.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    count: int
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class ParsedResponse:
    """The parts of an answer that are used.

    Attributes:
        version: the version that computed it.
        labels: the predicted class of each sample; None where the answer has no class names.
    """

    version: str
    labels: tuple[str, ...] | None


def build_load_request(
    protocol: str, raw: NDArray[Any], *, model: str, input: str, labels: tuple[str, ...] | None = None
) -> LoadRequest:
    """Return the request for a batch.

    Args:
        protocol: bytes (POST /predict, the samples one after the other), json (the same as nested lists), v2 (the V2
            protocol with its binary extension), or v2_json.
        raw: (n, …), in C order.
        model, input: names, for V2.
        labels: the correct classes.
    """
    # No compression: its time would be a part of the latencies.
    headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
    if protocol == "bytes":
        headers["Content-Type"] = "application/octet-stream"
        return LoadRequest("/predict", headers, raw.tobytes(), len(raw), labels)
    if protocol == "json":
        return LoadRequest("/predict", headers, json.dumps({"inputs": raw.tolist()}).encode(), len(raw), labels)
    tensor: dict[str, Any] = {"name": input, "datatype": DATATYPES[raw.dtype.name], "shape": list(raw.shape)}
    path = f"/v2/models/{model}/infer"
    if protocol == "v2_json":
        body = json.dumps({"inputs": [{**tensor, "data": raw.ravel().tolist()}]}).encode()
        return LoadRequest(path, headers, body, len(raw), labels)
    tensor["parameters"] = {"binary_data_size": raw.nbytes}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers |= {"Content-Type": "application/octet-stream", _HEADER: str(len(header))}
    return LoadRequest(path, headers, header + raw.tobytes(), len(raw), labels)


def parse_response(
    protocol: str, request: LoadRequest, status: int, headers: Mapping[str, str], body: bytes, classes: int
) -> ParsedResponse:
    """Parse and check an answer.

    Args:
        status: the HTTP status; 0 without an answer.
        classes: the number of probabilities of a sample; 0 where it is not known.

    Raises:
        Wrong: the status is not 200, the body is not a document of the protocol, the number of probabilities is wrong
            or their sum is not 1, or it names no version.
    """
    if status != 200:
        raise InvalidResponse(f"status {status}" if status else "no answer")
    try:
        answer = (_parse_predict_response if protocol in ("bytes", "json") else _parse_v2_response)(
            headers, body, request.count, classes
        )
    # Whatever a server sends is data: each of these can be raised by a document of another form.
    except (AttributeError, IndexError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise InvalidResponse(f"the body is not a response: {type(error).__name__} {error}"[:200]) from error
    if not answer.version:
        raise InvalidResponse("the answer names no version")
    return answer


def _parse_predict_response(headers: Mapping[str, str], body: bytes, count: int, classes: int) -> ParsedResponse:
    """Parse an answer of POST /predict."""
    document = json.loads(body)
    predictions = document["predictions"]
    _check_probabilities([entry["probabilities"] for entry in predictions], count, classes)
    return ParsedResponse(str(document["model_version"]), tuple(str(entry["label"]) for entry in predictions))


def _parse_v2_response(headers: Mapping[str, str], body: bytes, count: int, classes: int) -> ParsedResponse:
    """Parse an answer of the V2 protocol, JSON or binary, with an output of probabilities or of logits."""
    # Servers send headers in any case.
    lengths = {name.lower(): value for name, value in headers.items()}
    end = int(lengths.get(_HEADER.lower(), len(body)))
    document = json.loads(body[:end])
    numbers: dict[str, NDArray[np.float32]] = {}
    labels: tuple[str, ...] | None = None
    for tensor in document["outputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size", 0)
        data = body[end : end + size] if size else tensor["data"]
        # Binary tensors follow the JSON in the order of the outputs.
        end += size
        if tensor["datatype"] == "FP32":
            values = np.frombuffer(data, "<f4") if size else np.asarray(data, np.float32)
            numbers[tensor["name"]] = values.reshape(tensor["shape"])
        elif tensor["name"] == "label":
            labels = tuple(_decode_texts(data) if size else map(str, data))
    if not numbers:
        raise InvalidResponse("no output of FP32")
    # Other servers have no `probabilities`: then the first output is taken, and logits are converted.
    name = "probabilities" if "probabilities" in numbers else next(iter(numbers))
    _check_probabilities(
        (_apply_softmax(numbers[name]) if name == "logits" else numbers[name]).tolist(), count, classes
    )
    return ParsedResponse(str(document["model_version"]), labels)


def _decode_texts(data: bytes) -> Iterator[str]:
    """Yield the elements of a BYTES tensor: each is its length (4 bytes, little endian) and its content."""
    while data:
        length = int.from_bytes(data[:4], "little")
        yield data[4 : 4 + length].decode()
        data = data[4 + length :]


def _check_probabilities(probabilities: Sequence[Sequence[float]], count: int, classes: int) -> None:
    if len(probabilities) != count:
        raise InvalidResponse(f"{len(probabilities)} predictions for {count} samples")
    for row in probabilities:
        if classes and len(row) != classes:
            raise InvalidResponse(f"{len(row)} probabilities for {classes} classes")
        if not math.isclose(math.fsum(row), 1, abs_tol=_SUM) or min(row) < 0:
            raise InvalidResponse(f"the probabilities of a sample sum to {math.fsum(row):.6g}")


def _apply_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # The maximum is subtracted, so that `exp` does not overflow.
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities: NDArray[np.float32] = shifted / shifted.sum(-1, keepdims=True)
    return probabilities
