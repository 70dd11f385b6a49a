"""Answers of each protocol, and answers that are none."""

import json
from typing import Any

import numpy as np
import pytest

from mlscale.loadtest.build_requests import LoadRequest
from mlscale.loadtest.parse_responses import InvalidResponse, ParsedResponse, parse_response

ASKED = LoadRequest("/", {}, b"", 2, None)


def predicted(*probabilities: list[float], **changes: Any) -> bytes:
    printed = [{"label": "a", "probabilities": row} for row in probabilities]
    return json.dumps({"model": "m", "model_version": "m:v1", "predictions": printed, **changes}).encode()


def inferred(data: list[float], **changes: Any) -> bytes:
    out = {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": data, **changes}
    return json.dumps({"model_name": "m", "model_version": "m:v1", "outputs": [out]}).encode()


@pytest.mark.parametrize("protocol", ["bytes", "raw"])
def test_a_right_prediction(protocol: str) -> None:
    printed = parse_response(protocol, ASKED, 200, {}, predicted([0.1, 0.9], [0.5, 0.5]), 2)
    assert (printed.version, printed.labels) == ("m:v1", ("a", "a"))


def test_a_right_inference() -> None:
    assert parse_response("v2", ASKED, 200, {}, inferred([0.1, 0.9, 0.5, 0.5]), 2).version == "m:v1"
    logits = inferred([3.0, -9.0, 2.0, 2.0], name="logits")
    assert parse_response("v2", ASKED, 200, {}, logits, 2).labels is None


def test_a_binary_inference_of_several_tensors() -> None:
    outputs = [
        {"name": "logits", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}},
        {"name": "label", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 10}},
        {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "parameters": {"binary_data_size": 16}},
    ]
    header = json.dumps({"model_version": "m:v1", "outputs": outputs}).encode()
    tensors = [np.array([9, 9, 9, 9], "<f4").tobytes(), b"\1\0\0\0b\1\0\0\0a", np.array([0.1, 0.9, 0.5, 0.5], "<f4")]
    body = b"".join([header, *map(bytes, tensors)])
    headers = {"inference-header-content-length": str(len(header))}
    assert parse_response("v2", ASKED, 200, headers, body, 2) == ParsedResponse("m:v1", ("b", "a"))
    with pytest.raises(InvalidResponse, match="the body is not a response"):
        parse_response("v2", ASKED, 200, headers, body[:-1], 2)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (0, b"", "no answer"),
        (503, predicted([0.1, 0.9], [0.5, 0.5]), "status 503"),
        (200, b"{", "the body is not a response"),
        (200, b"[1]", "the body is not a response"),
        (200, b'{"predictions": []}', "0 predictions for 2 samples"),
        (200, predicted([0.1, 0.9]), "1 predictions for 2 samples"),
        (200, predicted([0.1, 0.8, 0.1], [0.1, 0.8, 0.1]), "3 probabilities for 2 classes"),
        (200, predicted([0.1, 0.9], [0.5, 0.6]), "sum to 1.1"),
        (200, predicted([0.1, 0.9], [1.5, -0.5]), "sum to 1"),
        (200, predicted([0.1, 0.9], [float("nan"), 1]), "sum to nan"),
        (200, predicted([0.1, 0.9], [0.5, 0.5], model_version=""), "names no version"),
    ],
)
def test_what_is_no_right_answer(status: int, body: bytes, why: str) -> None:
    with pytest.raises(InvalidResponse, match=why):
        parse_response("bytes", ASKED, status, {}, body, 2)


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        (
            b'{"error": "inputs[0] can\'t be used:\\n it lacks the column \'a\'"}',
            ": inputs[0] can't be used: it lacks the column 'a'",
        ),
        (json.dumps({"error": "x" * 999}).encode(), ": " + "x" * 160),
        (b'{"error": "\\u001b[2J"}', ""),
        (b'{"error": ""}', ""),
        (b'["no object"]', ""),
        (b"<html>", ""),
        (b"[" * 10_000, ""),
    ],
)
def test_the_reason_of_a_refusal_is_read(body: bytes, reported: str) -> None:
    with pytest.raises(InvalidResponse) as caught:
        parse_response("bytes", ASKED, 400, {}, body, 2)
    assert str(caught.value) == f"status 400{reported}"


@pytest.mark.parametrize(
    "body",
    [
        inferred([0.1, 0.9]),
        inferred([1.0, 1.0, 0.5, 0.5]),
        inferred([], datatype="BYTES"),
        inferred([0.0] * 4),
        inferred([float("nan")] * 4, name="value"),
    ],
)
def test_what_is_no_right_inference(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        parse_response("v2", ASKED, 200, {}, body, 2)


@pytest.mark.parametrize(
    "entries",
    [
        [{"id": "1", "labels": ["a", "b"], "probabilities": [0.9, 0.8]}, {"labels": [], "probabilities": [0.1, 0.2]}],
        [{"value": 3.5, "unit": "mm"}, {"value": -1.0}],
        [{"mask": "iVBORw0KGgo=", "shares": {"0": 1.0}}] * 2,
        [{"nats": 3.0, "tokens": 2, "nats_per_token": 1.5}] * 2,
    ],
)
def test_predictions_of_other_tasks(entries: list[dict[str, Any]]) -> None:
    document = {"model_version": "m:v1", "predictions": entries}
    printed = parse_response("raw", ASKED, 200, {}, json.dumps(document).encode(), 1)
    assert printed == ParsedResponse("m:v1", None)
    with pytest.raises(InvalidResponse, match="1 predictions for 2 samples"):
        parse_response("raw", ASKED, 200, {}, json.dumps({**document, "predictions": entries[:1]}).encode(), 1)
    with pytest.raises(InvalidResponse, match="a prediction is empty"):
        parse_response("raw", ASKED, 200, {}, json.dumps({**document, "predictions": [{"id": "1"}] * 2}).encode(), 1)


def test_an_inference_of_other_tasks_in_several_datatypes() -> None:
    outputs = [
        {"name": "nats", "datatype": "FP32", "shape": [2], "data": [3.0, 4.0]},
        {"name": "tokens", "datatype": "INT64", "shape": [2], "data": [2, 3]},
    ]
    body = json.dumps({"model_version": "m:v1", "outputs": outputs}).encode()
    assert parse_response("v2", ASKED, 200, {}, body, 0).version == "m:v1"
    value = inferred([3.5, -1.0], name="value", shape=[2, 1])
    assert parse_response("v2", ASKED, 200, {}, value, 1).labels is None
    with pytest.raises(InvalidResponse, match="2 logits for 3 classes"):
        parse_response("v2", ASKED, 200, {}, inferred([1.0, 2.0, 3.0, 4.0], name="logits"), 3)
