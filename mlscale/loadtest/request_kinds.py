"""A request of each protocol, and what is right about an answer to it. Needs numpy alone."""

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
"""How far the probabilities of a sample may be from 1, together; float32 in JSON keeps seven digits."""


class Wrong(Exception):  # noqa: N818 - the answer is, not the program
    """An answer that is no right one; says why."""


@dataclass(frozen=True)
class Question:
    """A request.

    Attributes:
        path: to POST to.
        headers: besides the length.
        body: what is sent.
        count: samples in it.
        labels: their right classes; None where nobody knows.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    count: int
    labels: tuple[str, ...] | None


@dataclass(frozen=True)
class Answer:
    """What is taken from an answer.

    Attributes:
        version: the version that computed it.
        labels: of each sample; None where the answer carries no names of classes.
    """

    version: str
    labels: tuple[str, ...] | None


def question(
    protocol: str, raw: NDArray[Any], *, model: str, input: str, labels: tuple[str, ...] | None = None
) -> Question:
    """The request for a batch.

    Args:
        protocol: bytes (POST /predict, the samples one after the other), json (the same as nested lists), v2 (the V2
            protocol with its binary extension), or v2_json.
        raw: (n, …), in C order.
        model, input: names, for V2.
        labels: the right classes.
    """
    kind = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
    if protocol == "bytes":
        kind["Content-Type"] = "application/octet-stream"
        return Question("/predict", kind, raw.tobytes(), len(raw), labels)
    if protocol == "json":
        return Question("/predict", kind, json.dumps({"inputs": raw.tolist()}).encode(), len(raw), labels)
    tensor: dict[str, Any] = {"name": input, "datatype": DATATYPES[raw.dtype.name], "shape": list(raw.shape)}
    path = f"/v2/models/{model}/infer"
    if protocol == "v2_json":
        body = json.dumps({"inputs": [{**tensor, "data": raw.ravel().tolist()}]}).encode()
        return Question(path, kind, body, len(raw), labels)
    tensor["parameters"] = {"binary_data_size": raw.nbytes}
    header = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    kind |= {"Content-Type": "application/octet-stream", _HEADER: str(len(header))}
    return Question(path, kind, header + raw.tobytes(), len(raw), labels)


def read(protocol: str, asked: Question, status: int, headers: Mapping[str, str], body: bytes, classes: int) -> Answer:
    """What the server answered.

    Args:
        status: of HTTP; 0 where nothing came.
        classes: how many probabilities a sample has; 0 where nobody knows.

    Raises:
        Wrong: it is another status than 200, no document of the protocol, has another number of probabilities, or such
            that do not sum to 1, or names no version.
    """
    if status != 200:
        raise Wrong(f"status {status}" if status else "no answer")
    try:
        answer = (_predicted if protocol in ("bytes", "json") else _inferred)(headers, body, asked.count, classes)
    except (AttributeError, IndexError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise Wrong(f"the body is no answer: {type(error).__name__} {error}"[:200]) from error
    if not answer.version:
        raise Wrong("the answer names no version")
    return answer


def _predicted(headers: Mapping[str, str], body: bytes, count: int, classes: int) -> Answer:
    """An answer of POST /predict."""
    document = json.loads(body)
    said = document["predictions"]
    _check([entry["probabilities"] for entry in said], count, classes)
    return Answer(str(document["model_version"]), tuple(str(entry["label"]) for entry in said))


def _inferred(headers: Mapping[str, str], body: bytes, count: int, classes: int) -> Answer:
    """An answer of the V2 protocol, in JSON or with tensors behind it: an output of probabilities, or of logits."""
    lengths = {name.lower(): value for name, value in headers.items()}
    end = int(lengths.get(_HEADER.lower(), len(body)))
    document = json.loads(body[:end])
    numbers: dict[str, NDArray[np.float32]] = {}
    labels: tuple[str, ...] | None = None
    for tensor in document["outputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size", 0)
        data = body[end : end + size] if size else tensor["data"]
        end += size
        if tensor["datatype"] == "FP32":
            values = np.frombuffer(data, "<f4") if size else np.asarray(data, np.float32)
            numbers[tensor["name"]] = values.reshape(tensor["shape"])
        elif tensor["name"] == "label":
            labels = tuple(_texts(data) if size else map(str, data))
    if not numbers:
        raise Wrong("there is no output of FP32")
    name = "probabilities" if "probabilities" in numbers else next(iter(numbers))
    _check((_softmax(numbers[name]) if name == "logits" else numbers[name]).tolist(), count, classes)
    return Answer(str(document["model_version"]), labels)


def _texts(data: bytes) -> Iterator[str]:
    """Elements of a BYTES tensor: each its length, 4 bytes, and its content."""
    while data:
        length = int.from_bytes(data[:4], "little")
        yield data[4 : 4 + length].decode()
        data = data[4 + length :]


def _check(probabilities: Sequence[Sequence[float]], count: int, classes: int) -> None:
    if len(probabilities) != count:
        raise Wrong(f"{len(probabilities)} predictions for {count} samples")
    for row in probabilities:
        if classes and len(row) != classes:
            raise Wrong(f"{len(row)} probabilities for {classes} classes")
        if not math.isclose(math.fsum(row), 1, abs_tol=_SUM) or min(row) < 0:
            raise Wrong(f"the probabilities of a sample sum to {math.fsum(row):.6g}")


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities: NDArray[np.float32] = shifted / shifted.sum(-1, keepdims=True)
    return probabilities
