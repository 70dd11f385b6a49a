"""Requests of each protocol, and answers that are none."""

import json
from typing import Any

import numpy as np
import pytest

from mlscale.loadtest.request_kinds import (
    PROTOCOLS,
    InvalidResponse,
    LoadRequest,
    ParsedResponse,
    build_load_request,
    parse_response,
)

RAW = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)


def ask(protocol: str) -> LoadRequest:
    return build_load_request(protocol, RAW, model="m", input="x", labels=("a", "b"))


def predicted(*probabilities: list[float], **changes: Any) -> bytes:
    said = [{"label": "a", "probabilities": row} for row in probabilities]
    return json.dumps({"model": "m", "model_version": "m:v1", "predictions": said, **changes}).encode()


def inferred(data: list[float], **changes: Any) -> bytes:
    out = {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": data, **changes}
    return json.dumps({"model_name": "m", "model_version": "m:v1", "outputs": [out]}).encode()


def test_bytes_are_the_samples_and_json_is_their_numbers() -> None:
    assert (ask("bytes").path, ask("bytes").body, ask("bytes").count) == ("/predict", RAW.tobytes(), 2)
    assert json.loads(ask("json").body) == {"inputs": RAW.tolist()}
    (tensor,) = json.loads(ask("v2_json").body)["inputs"]
    assert tensor == {"name": "x", "datatype": "UINT8", "shape": [2, 1, 4, 4], "data": list(range(32))}


def test_v2_has_its_header_in_front() -> None:
    asked = ask("v2")
    length = int(asked.headers["Inference-Header-Content-Length"])
    assert asked.path == "/v2/models/m/infer"
    assert asked.body[length:] == RAW.tobytes()
    assert json.loads(asked.body[:length])["inputs"][0]["parameters"] == {"binary_data_size": 32}


@pytest.mark.parametrize("protocol", ["bytes", "json"])
def test_a_right_prediction(protocol: str) -> None:
    said = parse_response(protocol, ask(protocol), 200, {}, predicted([0.1, 0.9], [0.5, 0.5]), 2)
    assert (said.version, said.labels) == ("m:v1", ("a", "a"))


def test_a_right_inference() -> None:
    assert parse_response("v2_json", ask("v2_json"), 200, {}, inferred([0.1, 0.9, 0.5, 0.5]), 2).version == "m:v1"
    logits = inferred([3.0, -9.0, 2.0, 2.0], name="logits")
    assert parse_response("v2_json", ask("v2_json"), 200, {}, logits, 2).labels is None


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
    assert parse_response("v2", ask("v2"), 200, headers, body, 2) == ParsedResponse("m:v1", ("b", "a"))
    with pytest.raises(InvalidResponse, match="the body is not a response"):
        parse_response("v2", ask("v2"), 200, headers, body[:-1], 2)


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
        parse_response("bytes", ask("bytes"), status, {}, body, 2)


@pytest.mark.parametrize(
    "body", [inferred([0.1, 0.9]), inferred([1.0, 1.0, 0.5, 0.5]), inferred([], datatype="INT64"), inferred([0.0] * 4)]
)
def test_what_is_no_right_inference(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        parse_response("v2_json", ask("v2_json"), 200, {}, body, 2)


def test_all_protocols_make_a_question() -> None:
    assert {protocol: ask(protocol).count for protocol in PROTOCOLS} == dict.fromkeys(PROTOCOLS, 2)
