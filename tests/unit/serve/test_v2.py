# ruff: noqa: E501 - errors stand here as they are sent
"""The V2 protocol, request by request as the specification writes them; errors word for word."""

import contextlib
import json
from typing import Any

import numpy as np
import pytest

from mlscale.export.servable import load, softmax
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
    np.testing.assert_allclose(probabilities["data"], softmax(LOGITS).ravel(), rtol=1e-5)
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
    np.testing.assert_allclose(tensors(server.ask(INFER, document))["probabilities"], softmax(LOGITS), rtol=1e-5)


def test_a_raw_body(server: Server) -> None:
    reply = server.ask(INFER, RAW2.tobytes(), {"Inference-Header-Content-Length": "0"})
    assert reply.headers["Content-Type"] == "application/octet-stream"
    np.testing.assert_allclose(tensors(reply)["logits"], LOGITS, rtol=1e-5)


def test_classification(server: Server) -> None:
    wanted = [{"name": "probabilities", "parameters": {"classification": 2}}]
    (output,) = server.ask(INFER, {"inputs": [ENTRY], "outputs": wanted}).json["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    probabilities = softmax(LOGITS)
    order = np.argsort(-probabilities, -1)[:, :2]
    expected = [f"{probabilities[n, k]:f}:{k}:{k}" for n in range(2) for k in order[n]]
    assert output["data"] == expected
    wanted[0]["parameters"] = {"classification": 99}
    assert server.ask(INFER, {"inputs": [ENTRY], "outputs": wanted}).json["outputs"][0]["shape"] == [2, 10]


def without(**changes: Any) -> dict[str, Any]:
    """A request with its input changed."""
    return {"inputs": [{key: value for key, value in {**ENTRY, **changes}.items() if value is not None}]}


GOLDEN: list[tuple[Any, int, str]] = [
    (b"{", 500, "failed to parse the request JSON buffer: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    (b"[]", 500, "failed to parse the request JSON buffer: it holds no object"),
    (b"[" * 100_000, 500, "failed to parse the request JSON buffer: maximum recursion depth exceeded while decoding a JSON array from a unicode string"),
    ({}, 400, "Unable to find 'inputs': a list of objects in the request JSON"),
    ({"inputs": [1]}, 400, "Unable to find 'inputs': a list of objects in the request JSON"),
    ({"inputs": []}, 400, "expected 1 inputs but got 0 inputs for model 'digits'. Got input(s) [], the model takes ['input']"),
    (without(name="x"), 400, "unexpected inference input 'x' for model 'digits'"),
    ({"inputs": [ENTRY, ENTRY]}, 400, "expected 1 inputs but got 2 inputs for model 'digits'. Got input(s) ['input', 'input'], the model takes ['input']"),
    (without(datatype="FP32"), 400, "inference input 'input' data-type is 'FP32', but model 'digits' expects 'UINT8'"),
    (without(shape=[2, 64]), 400, "unexpected shape for input 'input' for model 'digits'. Expected [-1,1,8,8], got [2,64]"),
    (without(shape=[0, 1, 8, 8]), 400, "unexpected shape for input 'input' for model 'digits'. Expected [-1,1,8,8], got [0,1,8,8]"),
    (without(shape=[2.0, 1, 8, 8]), 400, "unexpected shape for input 'input' for model 'digits'. Expected [-1,1,8,8], got [2.0,1,8,8]"),
    (without(shape=[257, 1, 8, 8], data=[0] * 16448), 400, "inference request batch-size must be <= 256 for 'digits'"),
    (without(shape=[3, 1, 8, 8]), 400, "unable to parse 'data': expected 192 elements for input 'input', got 128"),
    (without(shape=[2147483647, 1, 8, 8]), 400, "unable to parse 'data': expected 137438953408 elements for input 'input', got 128"),
    (without(data=[[1], [2, 3]]), 400, "the data of input 'input' is ragged, or no list of numbers"),
    (without(data=["a"] * 128), 400, "the data of input 'input' is no list of numbers"),
    (without(data=[True] * 128), 400, "the data of input 'input' is no list of numbers"),
    (without(data=None), 400, "the data of input 'input' is no list of numbers"),
    (without(data=[0.5] * 128), 400, "the values do not fit uint8; they run from 0.5 to 0.5, and are not all whole numbers of uint8; send pixels as they are decoded, 0 to 255: the model normalises them itself"),
    (without(data=[float("nan")] * 128), 400, "the values do not fit uint8; they run from nan to nan, and are not all whole numbers of uint8; send pixels as they are decoded, 0 to 255: the model normalises them itself"),
    (without(data=[10**30] * 128), 400, "the data of input 'input' is no list of numbers"),
    (without(parameters=[1]), 400, "'parameters' in the request JSON is no object"),
    (without(parameters={"binary_data_size": 128}, data=None), 400, "input byte size mismatch for input 'input' for model 'digits'. Expected 128, got 0"),
    ({**without(), "id": 7}, 400, "an id is a text of at most 200 printable characters"),
    ({**without(), "id": "\ud800"}, 400, "an id is a text of at most 200 printable characters"),
    ({**without(), "id": "a\r\nb"}, 400, "an id is a text of at most 200 printable characters"),
    ({**without(), "outputs": [{"name": "x"}]}, 400, "unexpected inference output 'x' for model 'digits'"),
    ({**without(), "outputs": {"name": "x"}}, 400, "'outputs' in the request JSON is no list of objects"),
    ({**without(), "outputs": [{"name": "logits", "parameters": {"classification": -1}}]}, 400, "'classification' of output 'logits' is no number of classes"),
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
    reply = server.ask(path, b"" if method == "POST" else None, method=method)
    assert (reply.status, reply.json) == (status, {"error": error})


def test_sizes_that_lie(server: Server) -> None:
    entry = {key: value for key, value in ENTRY.items() if key != "data"}
    for size, tail, got in ((127, RAW2.tobytes(), "127"), (128, b"short", "5"), ("128", RAW2.tobytes(), "128")):
        reply = binary(server, {"inputs": [{**entry, "parameters": {"binary_data_size": size}}]}, tail)
        told = f"input byte size mismatch for input 'input' for model 'digits'. Expected 128, got {got}"
        assert (reply.status, reply.json["error"]) == (400, told)
    assert (
        binary(server, {"inputs": [ENTRY]}, b"more").json["error"]
        == "unexpected additional input data for model 'digits'"
    )
    for length in ("-1", "x", "999"):
        reply = server.ask(INFER, b"{}", {"Inference-Header-Content-Length": length})
        assert reply.json == {"error": f"Unable to parse Inference-Header-Content-Length, got: {length}"}
    reply = server.ask(INFER, b"12345", {"Inference-Header-Content-Length": "0"})
    assert reply.json == {"error": "5 bytes are no whole number of samples: one has 64 bytes, uint8 of [1, 8, 8]"}


def test_one_connection_for_right_and_wrong(server: Server) -> None:
    with contextlib.closing(server.connection()) as connection:
        for _ in range(20):
            assert ask(connection, INFER, b"{").status == 500
            assert ask(connection, INFER, {"inputs": [ENTRY]}).status == 200
