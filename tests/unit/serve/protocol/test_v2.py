# ruff: noqa: E501 - errors stand here as they are sent
"""The V2 protocol, request by request as the specification writes them; errors word for word."""

import contextlib
import json
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest

from mlscale.export.servable import load
from mlscale.task_types.softmax import compute_softmax
from tests.serving import STORED, Reply, Server, ask, pixels

INFER = "/v2/models/digits/infer"
RAW2 = pixels(2)
LOGITS = load(STORED).logits(RAW2)
ENTRY = {"name": "input", "datatype": "UINT8", "shape": [2, 1, 8, 8], "data": RAW2.ravel().tolist()}


def binary(server: Server, document: dict[str, Any], tail: bytes, **headers: str) -> Reply:
    """A request with the binary extension."""
    head = json.dumps(document).encode()
    return server.ask(INFER, head + tail, {"Inference-Header-Content-Length": str(len(head)), **headers})


def tensors(reply: Reply) -> dict[str, Any]:
    """The tensors of an answer with the binary extension, by name."""
    length = int(reply.headers["Inference-Header-Content-Length"])
    rest, found = reply.body[length:], {}
    for output in json.loads(reply.body[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = output["data"]
            continue
        content, rest = rest[:size], rest[size:]
        if output["datatype"] == "FP32":
            found[output["name"]] = np.frombuffer(content, "<f4").reshape(output["shape"])
        else:
            texts = found[output["name"]] = []
            while content:
                size = int.from_bytes(content[:4], "little")
                texts.append(content[4 : 4 + size].decode())
                content = content[4 + size :]
    assert rest == b""
    return found


def test_what_the_server_and_the_model_are(server: Server) -> None:
    assert set(server.ask("/v2").json) == {"name", "version", "extensions"}
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"):
        assert (server.ask(path).status, server.ask(path).body) == (200, b"")
    number = server.version.partition(":")[2]
    for path in ("", f"/versions/{number}", f"/versions/{server.version.replace(':', '%3A')}"):
        assert server.ask(f"/v2/models/digits{path}").json == {
            "name": "digits",
            "versions": [server.version],
            "platform": "onnxruntime_onnx",
            "inputs": [{"name": "input", "datatype": "UINT8", "shape": [-1, 1, 8, 8]}],
            "outputs": [
                {"name": "logits", "datatype": "FP32", "shape": [-1, 10]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
            ],
            "parameters": {
                "runtime": f"ONNX Runtime {version('onnxruntime')} on CPU",
                "labels": list("0123456789"),
                "outputs": {
                    "logits": "the scores of the classes, (n, classes), in the order of the labels; softmax gives the "
                    "probabilities",
                    "probabilities": "of the classes, in the order of the labels",
                    "label": "the likeliest class",
                },
            },
        }
    index = server.ask("/v2/repository/index", b"")
    assert index.json == [{"name": "digits", "version": server.version, "state": "READY"}]


def test_json_in_json_out(server: Server) -> None:
    reply = server.ask(INFER, {"id": "q", "inputs": [ENTRY]})
    assert reply.status == 200
    assert reply.headers["mlscale-version"] == server.version
    document = reply.json
    assert (document["id"], document["model_name"], document["model_version"]) == ("q", "digits", server.version)
    logits, probabilities, label = document["outputs"]
    assert [output["shape"] for output in document["outputs"]] == [[2, 10], [2, 10], [2]]
    np.testing.assert_allclose(logits["data"], LOGITS.ravel(), rtol=1e-5)
    np.testing.assert_allclose(probabilities["data"], compute_softmax(LOGITS).ravel(), rtol=1e-5)
    assert label["data"] == [str(number) for number in LOGITS.argmax(-1)]
    nested = {**ENTRY, "data": RAW2.tolist()}
    assert server.ask(INFER, {"id": "q", "inputs": [nested]}).json == document
    assert "id" not in server.ask(INFER, {"inputs": [ENTRY]}).json


def test_binary_in_binary_out(server: Server) -> None:
    entry = {**ENTRY, "parameters": {"binary_data_size": RAW2.nbytes}}
    del entry["data"]
    wanted = [{"name": "label", "parameters": {"binary_data": True}}, {"name": "logits"}]
    found = tensors(binary(server, {"inputs": [entry], "outputs": wanted}, RAW2.tobytes()))
    assert list(found) == ["label", "logits"]
    assert found["label"] == [str(number) for number in LOGITS.argmax(-1)]
    np.testing.assert_allclose(found["logits"], LOGITS.ravel(), rtol=1e-5)
    document = {"inputs": [entry], "parameters": {"binary_data_output": True}}
    found = tensors(binary(server, document, RAW2.tobytes()))
    np.testing.assert_allclose(found["logits"], LOGITS, rtol=1e-5)
    document = {"inputs": [ENTRY], "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}
    np.testing.assert_allclose(
        tensors(server.ask(INFER, document))["probabilities"], compute_softmax(LOGITS), rtol=1e-5
    )


def test_a_raw_body(server: Server) -> None:
    reply = server.ask(INFER, RAW2.tobytes(), {"Inference-Header-Content-Length": "0"})
    assert reply.headers["Content-Type"] == "application/octet-stream"
    np.testing.assert_allclose(tensors(reply)["logits"], LOGITS, rtol=1e-5)


def test_classification(server: Server) -> None:
    wanted = [{"name": "probabilities", "parameters": {"classification": 2}}]
    (output,) = server.ask(INFER, {"inputs": [ENTRY], "outputs": wanted}).json["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    probabilities = compute_softmax(LOGITS)
    order = np.argsort(-probabilities, -1)[:, :2]
    expected = [f"{probabilities[n, k]:f}:{k}:{k}" for n in range(2) for k in order[n]]
    assert output["data"] == expected
    wanted[0]["parameters"] = {"classification": 99}
    assert server.ask(INFER, {"inputs": [ENTRY], "outputs": wanted}).json["outputs"][0]["shape"] == [2, 10]


def without(**changes: Any) -> dict[str, Any]:
    """A request with its input changed."""
    return {"inputs": [{key: value for key, value in {**ENTRY, **changes}.items() if value is not None}]}


COUNT = "attempt to access JSON non-unsigned-integer as unsigned-integer"
UNSIGNED = f"Unable to parse 'binary_data_size': {COUNT}"
GOLDEN: list[tuple[Any, int, str]] = [
    (b"{", 500, "failed to parse the request JSON buffer: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (b"", 400, "input byte size mismatch for input 'raw_input' for model 'digits'. Expected 64, got 0"),
    (b"[]", 500, "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
    (b"[" * 10_000, 500, "failed to parse the request JSON buffer: it is nested too deep"),
    (b"[" * 100_000, 413, "a request in JSON has at most 256 samples: send more as bytes"),
    ({}, 500, "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
    ({"inputs": None}, 500, "Unable to parse 'inputs': attempt to access JSON non-array as array"),
    ({"inputs": 5}, 500, "Unable to parse 'inputs': attempt to access JSON non-array as array"),
    ({"inputs": [1]}, 400, "'inputs' in the request JSON is not a list of objects"),
    ({"inputs": []}, 400, "expected 1 inputs but got 0 inputs for model 'digits'. Got input(s) [], but missing required input(s) ['input']. Please provide all required input(s)."),
    (without(name=5), 500, "Unable to parse 'name': attempt to access JSON non-string as string"),
    (without(datatype=None), 500, "Unable to parse 'datatype': attempt to access non-existing object member 'datatype'"),
    (without(shape=None), 500, "Unable to parse 'shape': attempt to access non-existing object member 'shape'"),
    (without(shape="x"), 500, "Unable to parse 'shape': attempt to access JSON non-array as array"),
    (without(shape=[10**18, 1, 8, 8]), 400, "unexpected shape for input 'input' for model 'digits'. Expected [-1,1,8,8], got [1000000000000000000,1,8,8]"),
    (without(shape=[10**4000, 1, 8, 8]), 400, "unexpected shape for input 'input' for model 'digits'. Expected [-1,1,8,8], got […,1,8,8]"),
    (without(shape=[[[[[]]]]] * 200), 500, f"Unable to parse 'shape': {COUNT}"),
    (without(shape=[-1, 1, 8, 8]), 500, f"Unable to parse 'shape': {COUNT}"),
    (without(datatype="XX"), 400, "invalid datatype for input input"),
    (without(name="x" * 60_000), 400, f"unexpected inference input '{'x' * 200}' for model 'digits'"),
    (without(data=RAW2.ravel().tolist()[:-1]), 500, "Unable to parse 'data': Shape does not match true shape of 'data' field"),
    (without(data=[]), 500, "Unable to parse 'data': Shape does not match true shape of 'data' field"),
    (without(data="x"), 500, "Unable to parse 'data': attempt to access JSON non-array as array"),
    (without(name="x"), 400, "unexpected inference input 'x' for model 'digits'"),
    ({"inputs": [ENTRY, ENTRY]}, 400, "input 'input' already exists in request"),
    ({"inputs": [ENTRY], "outputs": [{"name": "label"}, {"name": "label"}]}, 400, "output 'label' already exists in request"),
    ({"inputs": [ENTRY], "outputs": [{"name": "label"}] * 70}, 400, "there are 70 'outputs' in the request JSON, over 64"),
    (without(datatype="FP32"), 400, "inference input 'input' data-type is 'FP32', but model 'digits' expects 'UINT8'"),
    (without(shape=[2, 64]), 400, "unexpected shape for input 'input' for model 'digits'. Expected [-1,1,8,8], got [2,64]"),
    (without(shape=[0, 1, 8, 8]), 400, "unexpected shape for input 'input' for model 'digits'. Expected [-1,1,8,8], got [0,1,8,8]"),
    (without(shape=[2.0, 1, 8, 8]), 500, f"Unable to parse 'shape': {COUNT}"),
    (without(shape=[257, 1, 8, 8], data=[0] * 16448), 400, "inference request batch-size must be <= 256 for 'digits'"),
    (without(shape=[3, 1, 8, 8]), 500, "Unable to parse 'data': Shape does not match true shape of 'data' field"),
    (without(shape=[2147483647, 1, 8, 8]), 500, "Unable to parse 'data': Shape does not match true shape of 'data' field"),
    (without(data=[[1], [2, 3]]), 400, "the data of input 'input' is ragged, or no list of numbers"),
    (without(data=["a"] * 128), 400, "the data of input 'input' is ragged, or no list of numbers"),
    (without(data=["a" * 30_000] + [""] * 500), 400, "the data of input 'input' is ragged, or no list of numbers"),
    (without(data=[True] * 128), 400, "the data of input 'input' is ragged, or no list of numbers"),
    (without(data=None), 400, "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', 'shared_memory_region' in 'parameters'. But no field is set"),
    (without(data=[0.5] * 128), 400, "the values do not fit uint8; they run from 0.5 to 0.5, and are not all whole numbers of uint8; pixels.astype('uint8'), of pixels as they are decoded, 0 to 255: the model normalises them itself"),
    (without(data=[float("nan")] * 128), 400, "the values do not fit uint8; they run from nan to nan, and are not all whole numbers of uint8; pixels.astype('uint8'), of pixels as they are decoded, 0 to 255: the model normalises them itself"),
    (without(data=[10**30] * 128), 400, "the data of input 'input' has numbers that are too large"),
    (without(data=[0.5, 10**400] * 64), 400, "the data of input 'input' has numbers that are too large"),
    (without(parameters=[1]), 400, "'parameters' in the request JSON is not an object"),
    (without(parameters={"binary_data_size": 128}, data=None), 400, "unexpected size for input 'input', expecting 128 additional bytes for model 'digits'"),
    (without(parameters={"binary_data_size": 10**30}, data=None), 400, f"unexpected size for input 'input', expecting {2**63} additional bytes for model 'digits'"),
    (without(parameters={"binary_data_size": 128}), 400, "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', 'shared_memory_region' in 'parameters'. But set 'data' 'binary_data_size'"),
    ({**without(), "id": 7}, 500, "Unable to parse 'id': attempt to access JSON non-string as string"),
    ({**without(), "id": "\ud800"}, 400, "an id is a text of at most 200 printable characters"),
    ({**without(), "id": "a\r\nb"}, 400, "an id is a text of at most 200 printable characters"),
    ({**without(), "outputs": [{"name": "x"}]}, 400, "unexpected inference output 'x' for model 'digits'"),
    ({**without(), "outputs": {"name": "x"}}, 500, "Unable to parse 'outputs': attempt to access JSON non-array as array"),
    ({**without(), "outputs": [{}]}, 500, "Unable to parse 'name': attempt to access non-existing object member 'name'"),
    ({**without(), "outputs": [{"name": "logits", "parameters": {"classification": -1}}]}, 500, f"Unable to set 'classification': {COUNT}"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "status", "error"), GOLDEN, ids=range(len(GOLDEN)))
def test_errors_word_for_word(server: Server, request_: Any, status: int, error: str) -> None:
    reply = server.ask(INFER, request_)
    assert (reply.status, reply.json) == (status, {"error": error})


@pytest.mark.parametrize(
    ("path", "method", "status", "error"),
    [
        ("/v2/models/x", "GET", 404, "Request for unknown model: 'x' is not found"),
        ("/v2/models/x/infer", "POST", 404, "Request for unknown model: 'x' is not found"),
        ("/v2/models/x/ready", "GET", 400, "Request for unknown model: 'x' is not found"),
        ("/v2/models/digits/versions/99", "GET", 404, "Request for unknown model: 'digits' version 99 is not found"),
        ("/v2/models/digits/versions//infer", "POST", 404, "Request for unknown model: 'digits' version  is not found"),
        ("/v2/models/digits/nothing", "GET", 404, "Not Found"),
        ("/v2/nothing", "GET", 404, "Not Found"),
        ("/v2/repository/models/x/load", "POST", 400, "failed to load 'x', no such model: this server has 'digits'"),
        (
            "/v2/repository/models/digits/unload",
            "POST",
            400,
            "explicit model unload is not allowed: this server has one model",
        ),
        ("/v2/repository/index", "GET", 405, "send POST"),
        ("/v2/models/digits/infer", "GET", 405, "send POST"),
        ("/predict", "PUT", 405, "send POST"),
        ("/metrics", "DELETE", 405, "send GET, HEAD"),
        ("/%2e%2e/etc/passwd", "GET", 404, "Not Found"),
    ],
)
def test_places_that_are_not_there(server: Server, path: str, method: str, status: int, error: str) -> None:
    json_ = {"Content-Type": "application/json"}
    reply = server.ask(path, b"" if method == "POST" else None, json_, method)
    assert (reply.status, reply.json) == (status, {"error": error})


def test_sizes_that_lie(server: Server) -> None:
    entry = {key: value for key, value in ENTRY.items() if key != "data"}
    for size, tail, status, reported in (
        (127, RAW2.tobytes(), 400, "unexpected additional input data for model 'digits'"),
        (128, b"short", 400, "unexpected size for input 'input', expecting 123 additional bytes for model 'digits'"),
        (
            64,
            RAW2.tobytes()[:64],
            400,
            "input byte size mismatch for input 'input' for model 'digits'. Expected 128, got 64",
        ),
        ("128", RAW2.tobytes(), 500, UNSIGNED),
        (-1, RAW2.tobytes(), 500, UNSIGNED),
    ):
        reply = binary(server, {"inputs": [{**entry, "parameters": {"binary_data_size": size}}]}, tail)
        assert (reply.status, reply.json["error"]) == (status, reported)
    assert (
        binary(server, {"inputs": [ENTRY]}, b"more").json["error"]
        == "unexpected additional input data for model 'digits'"
    )
    assert binary(server, {"inputs": [entry]}, RAW2.tobytes()).status == 400
    reply = server.ask(INFER, b"{}", {"Inference-Header-Content-Length": "999"})
    assert reply.json == {"error": "inference header size should be in range (0, 2), got: 999"}
    for length in ("-1", "x", "9" * 5000):
        reply = server.ask(INFER, b"{}", {"Inference-Header-Content-Length": length})
        assert reply.json == {"error": f"Unable to parse Inference-Header-Content-Length, got: {length[:200]}"}
    reply = server.ask(INFER, b"12345", {"Inference-Header-Content-Length": "0"})
    reported = "input byte size mismatch for input 'raw_input' for model 'digits'. Expected 64, got 5"
    assert reply.json == {"error": reported}


def test_one_connection_for_right_and_wrong(server: Server) -> None:
    with contextlib.closing(server.connection()) as connection:
        for _ in range(20):
            assert ask(connection, INFER, b"{").status == 500
            assert ask(connection, INFER, {"inputs": [ENTRY]}).status == 200


def test_configuration_and_statistics_of_triton_are_not_served(server: Server) -> None:
    paths = ("/v2/models/digits/config", "/v2/models/digits/stats", "/v2/models/stats")
    assert [server.ask(path).status for path in paths] == [404] * 3
