"""The same V2 requests to a real Triton and to `mlscale serve`: statuses, bodies and messages are equal.

What differs is in `DIFFERENT`, with both statuses; docs/serve.md has the reasons in a table.
"""

from __future__ import annotations

import gzip
import http.client
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from tests.made_servables import PENGUIN, make_servables
from tests.serving import Reply, Server, ask, serving
from tests.triton_server import serving_triton

pytestmark = pytest.mark.slow

PHOTOS = "/v2/models/photos"
PIXELS = {"name": "input", "datatype": "UINT8", "shape": [1, 3, 8, 8], "data": [7] * 192}
LOGITS = [{"name": "logits"}]
HEAD = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Row:
    """A request: what is sent, and to which model's server."""

    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    method: str = ""
    model: str = "photos"


def infer(*, outputs: Any = LOGITS, **changes: Any) -> dict[str, Any]:
    """A request for logits, its input changed."""
    entry = {key: value for key, value in {**PIXELS, **changes}.items() if value is not None}
    return {"inputs": [entry], "outputs": outputs}


def binary(entries: list[dict[str, Any]], *tails: bytes, cut: int = 0, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A request with binary tensors, and its headers."""
    inputs = [
        {**entry, "parameters": {"binary_data_size": len(tail)}} for entry, tail in zip(entries, tails, strict=True)
    ]
    head = json.dumps({"inputs": inputs, "outputs": LOGITS, **more}).encode()
    body = head + b"".join(tails)
    return body[: len(body) - cut] if cut >= 0 else body + bytes(-cut), {HEAD: str(len(head))}


def pack_texts(*texts: bytes) -> bytes:
    """A BYTES tensor."""
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


BARE = {key: value for key, value in PIXELS.items() if key != "data"}
PLAIN = json.dumps(infer()).encode()
NUMBERS = {"name": "numbers", "datatype": "FP64", "shape": [1, 2]}
TEXTS = {"name": "texts", "datatype": "BYTES", "shape": [1, 2]}
BYTES = {"name": "bytes", "datatype": "UINT8", "shape": [2, 24]}
LENGTHS = {"name": "lengths", "datatype": "INT64", "shape": [2, 1]}
JSON = {"Content-Type": "application/json"}

ALIKE: dict[str, Row] = {
    "live": Row("/v2/health/live"),
    "ready": Row("/v2/health/ready"),
    "model ready": Row(f"{PHOTOS}/ready"),
    "json": Row(f"{PHOTOS}/infer", infer()),
    "nested data": Row(f"{PHOTOS}/infer", infer(data=[[[[7] * 8] * 8] * 3])),
    "two samples": Row(f"{PHOTOS}/infer", infer(shape=[2, 3, 8, 8], data=[*range(192), *range(192)])),
    "id": Row(f"{PHOTOS}/infer", {**infer(), "id": "order-17"}),
    "binary of one output": Row(
        f"{PHOTOS}/infer", infer(outputs=[{"name": "logits", "parameters": {"binary_data": True}}])
    ),
    "binary input": Row(f"{PHOTOS}/infer", *binary([BARE], bytes([7] * 192))),
    "classification": Row(f"{PHOTOS}/infer", infer(outputs=[{"name": "logits", "parameters": {"classification": 2}}])),
    "classification of more than there are": Row(
        f"{PHOTOS}/infer", infer(outputs=[{"name": "logits", "parameters": {"classification": 200}}])
    ),
    "classification in binary": Row(
        f"{PHOTOS}/infer", infer(outputs=[{"name": "logits", "parameters": {"classification": 2, "binary_data": True}}])
    ),
    "classification: no number": Row(
        f"{PHOTOS}/infer", infer(outputs=[{"name": "logits", "parameters": {"classification": "a"}}])
    ),
    "strings and NaN": Row(
        "/v2/models/penguins/infer",
        *binary([NUMBERS, TEXTS], np.array([[np.nan, 3800]]).tobytes(), pack_texts("Größe".encode(), b"female")),
        model="penguins",
    ),
    "strings in JSON": Row(
        "/v2/models/penguins/infer",
        {"inputs": [{**NUMBERS, "data": [39.5, 3800]}, {**TEXTS, "data": ["Dream", ""]}], "outputs": LOGITS},
        model="penguins",
    ),
    "lengths": Row(
        "/v2/models/reviews/infer",
        *binary([BYTES, LENGTHS], bytes(range(48)), np.array([[24], [3]]).tobytes()),
        model="reviews",
    ),
    "missing input": Row("/v2/models/reviews/infer", *binary([BYTES], bytes(48)), model="reviews"),
    "gzip": Row(f"{PHOTOS}/infer", gzip.compress(PLAIN), {"Content-Encoding": "gzip"}),
    "deflate": Row(f"{PHOTOS}/infer", zlib.compress(PLAIN), {"Content-Encoding": "deflate"}),
    "raw body": Row(f"{PHOTOS}/infer", bytes([7] * 191), {HEAD: "0"}),
    "empty body": Row(f"{PHOTOS}/infer", b""),
    "too few bytes": Row(f"{PHOTOS}/infer", *binary([BARE], bytes(192), cut=4)),
    "too many bytes": Row(f"{PHOTOS}/infer", *binary([BARE], bytes(192), cut=-4)),
    "bytes of another shape": Row(f"{PHOTOS}/infer", *binary([BARE], bytes(191))),
    "length of the JSON too large": Row(f"{PHOTOS}/infer", PLAIN, {HEAD: "9999"}),
    "unknown model": Row("/v2/models/nope"),
    "unknown model infers": Row("/v2/models/nope/infer", infer()),
    "unknown version": Row(f"{PHOTOS}/versions/99"),
    "unknown version infers": Row(f"{PHOTOS}/versions/99/infer", infer()),
    "wrong name": Row(f"{PHOTOS}/infer", infer(name="nope")),
    "wrong datatype": Row(f"{PHOTOS}/infer", infer(datatype="FP32")),
    "no datatype": Row(f"{PHOTOS}/infer", infer(datatype="XX")),
    "wrong shape": Row(f"{PHOTOS}/infer", infer(shape=[1, 3, 8, 7], data=[7] * 168)),
    "wrong rank": Row(f"{PHOTOS}/infer", infer(shape=[1, 192])),
    "shape below zero": Row(f"{PHOTOS}/infer", infer(shape=[-1, 3, 8, 8])),
    "less data than the shape": Row(f"{PHOTOS}/infer", infer(shape=[2, 3, 8, 8])),
    "no inputs": Row(f"{PHOTOS}/infer", {"inputs": []}),
    "no member inputs": Row(f"{PHOTOS}/infer", {}),
    "a list": Row(f"{PHOTOS}/infer", []),
    "input twice": Row(f"{PHOTOS}/infer", {"inputs": [PIXELS, PIXELS]}),
    "unknown output": Row(f"{PHOTOS}/infer", infer(outputs=[{"name": "nope"}])),
    "id that is not text": Row(f"{PHOTOS}/infer", {**infer(), "id": 7}),
    "data and binary": Row(f"{PHOTOS}/infer", infer(parameters={"binary_data_size": 192})),
    "neither": Row(f"{PHOTOS}/infer", infer(data=None)),
    "unknown path": Row("/v2/nope"),
    "unknown part of a model": Row(f"{PHOTOS}/nope"),
}
DIFFERENT: dict[str, tuple[Row, int, int]] = {
    "binary_data_output with outputs": (
        Row(f"{PHOTOS}/infer", {**infer(), "parameters": {"binary_data_output": True}}),
        200,
        200,
    ),
    "bad json": (Row(f"{PHOTOS}/infer", b"{not json"), 500, 500),
    "infer by GET": (Row(f"{PHOTOS}/infer"), 405, 405),
    "metadata by POST": (Row(PHOTOS, b""), 405, 405),
    "index by GET": (Row("/v2/repository/index"), 405, 405),
    "load by GET": (Row("/v2/repository/models/photos/load"), 405, 405),
    "unknown model is not ready": (Row("/v2/models/nope/ready"), 400, 400),
    "no samples": (Row(f"{PHOTOS}/infer", infer(shape=[0, 3, 8, 8], data=[])), 400, 400),
    "more than a batch": (Row(f"{PHOTOS}/infer", infer(shape=[70, 3, 8, 8], data=[7] * 13440)), 400, 200),
    "text as data": (Row(f"{PHOTOS}/infer", infer(data=["a"] * 192)), 500, 400),
    "fractions of whole numbers": (Row(f"{PHOTOS}/infer", infer(data=[1.5] * 192)), 500, 400),
    "values beyond the type": (Row(f"{PHOTOS}/infer", infer(data=[300] * 192)), 200, 400),
    "output twice": (Row(f"{PHOTOS}/infer", infer(outputs=LOGITS * 2)), 200, 400),
    "unknown compression": (Row(f"{PHOTOS}/infer", PLAIN, {"Content-Encoding": "br"}), 501, 415),
    "corrupt compression": (Row(f"{PHOTOS}/infer", b"junk", {"Content-Encoding": "gzip"}), 400, 400),
    "length of the JSON is not a number": (Row(f"{PHOTOS}/infer", PLAIN, {HEAD: "x"}), 400, 400),
    "a text of no length": (
        Row(
            "/v2/models/reviews/infer",
            *binary([BYTES, LENGTHS], bytes(48), np.array([[24], [0]]).tobytes()),
            model="reviews",
        ),
        200,
        400,
    ),
    "other batch of another input": (
        Row(
            "/v2/models/reviews/infer",
            *binary([BYTES, {**LENGTHS, "shape": [1, 1]}], bytes(48), np.array([[3]]).tobytes()),
            model="reviews",
        ),
        400,
        400,
    ),
    "a path with a slash at its end": (Row("/v2/"), 404, 200),
    "load without a type": (Row("/v2/repository/models/photos/load", b""), 200, 415),
    "load of an unknown model": (Row("/v2/repository/models/nope/load", b"{}", JSON), 500, 400),
    "unload of an unknown model": (Row("/v2/repository/models/nope/unload", b"{}", JSON), 200, 400),
}


@dataclass(frozen=True)
class Servers:
    """Both servers; `mlscale serve` has one model each."""

    triton: tuple[str, int]
    mlscale: dict[str, Server]

    def send(self, row: Row) -> tuple[Reply, Reply]:
        """The answers of Triton, and of `mlscale serve`."""
        with closing(http.client.HTTPConnection(*self.triton, timeout=60)) as connection:
            first = ask(connection, row.path, row.body, row.headers, row.method)
        return first, self.mlscale[row.model].ask(row.path, row.body, row.headers, row.method)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    made = make_servables(folder / "made")
    chosen = {name: made[name] for name in ("photos", "penguins", "reviews")}
    with ExitStack() as stack:
        command = stack.enter_context(serving_triton(folder, list(chosen.values())))
        running = {}
        for name, path in chosen.items():
            (own := folder / name).mkdir()
            running[name] = stack.enter_context(serving(own, path, "events=null", "max_batch=64"))
        yield Servers(("127.0.0.1", command.ports["http"]), running)


def split_body(reply: Reply) -> tuple[Any, bytes]:
    """The JSON of a body and the bytes after it, without the version, and what Triton alone adds to messages."""
    headers = {key.lower(): value for key, value in reply.headers.items()}
    size = int(headers.get(HEAD.lower(), len(reply.body)))
    document = json.loads(reply.body[:size]) if size else None
    if isinstance(document, dict):
        document.pop("model_version", None)
        if "error" in document:
            document["error"] = re.sub(r"^\[request id: [^]]*\] |\.? NOTE: .*$", "", document["error"])
    return document, reply.body[size:]


@pytest.mark.parametrize("name", ALIKE)
def test_alike(servers: Servers, name: str) -> None:
    triton, mlscale = servers.send(ALIKE[name])
    assert (mlscale.status, split_body(mlscale)) == (triton.status, split_body(triton))


@pytest.mark.parametrize("name", DIFFERENT)
def test_different(servers: Servers, name: str) -> None:
    row, *statuses = DIFFERENT[name]
    replies = servers.send(row)
    assert [reply.status for reply in replies] == statuses
    for reply in replies:
        if reply.status >= 400:
            assert list(reply.json) == ["error"]
    # A row that becomes equal belongs to the others.
    assert statuses[0] != statuses[1] or split_body(replies[0]) != split_body(replies[1])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_answers(servers: Servers, encoding: str) -> None:
    row = Row(f"{PHOTOS}/infer", infer(shape=[64, 3, 8, 8], data=[7] * 64 * 192), {"Accept-Encoding": encoding})
    documents = []
    for reply in servers.send(row):
        assert reply.headers["Content-Encoding"] == encoding
        content = (gzip if encoding == "gzip" else zlib).decompress(reply.body)
        documents.append(json.loads(content)["outputs"])
    assert documents[0] == documents[1]


@pytest.mark.parametrize("model", ["photos", "penguins", "reviews"])
def test_metadata(servers: Servers, model: str) -> None:
    triton, mlscale = (reply.json for reply in servers.send(Row(f"/v2/models/{model}", model=model)))
    assert list(triton) == [key for key in mlscale if key != "parameters"]
    assert (triton["name"], triton["platform"]) == (mlscale["name"], mlscale["platform"])
    # A scalar is [1] there; `probabilities` and `label` are outputs of the model for raw samples.
    drop = {(-1, 1): (-1,)}
    for entry in triton["inputs"]:
        entry["shape"] = list(drop.get(tuple(entry["shape"]), entry["shape"]))
    assert triton["inputs"] == mlscale["inputs"]
    assert triton["outputs"] == mlscale["outputs"][:1]


def test_server_metadata(servers: Servers) -> None:
    triton, mlscale = (reply.json for reply in servers.send(Row("/v2")))
    assert list(triton) == list(mlscale)
    assert (triton["name"], triton["version"].partition(".")[0]) == ("triton", "2")
    assert set(mlscale["extensions"]) < set(triton["extensions"])


def test_repository(servers: Servers) -> None:
    triton, mlscale = servers.send(Row("/v2/repository/index", b"{}"))
    (entry,) = (entry for entry in triton.json if entry["name"] == "photos")
    (own,) = mlscale.json
    assert (list(own), own["name"], own["state"]) == (list(entry), entry["name"], entry["state"])
    # `load` alike: an empty body, and the model serves on.
    replies = servers.send(Row("/v2/repository/models/photos/load", b"{}", JSON))
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"")] * 2
    test_alike(servers, "json")


def test_a_row_is_the_same_request_for_both(servers: Servers) -> None:
    entry = {"name": "row", "datatype": "BYTES", "shape": [1, 1], "data": [json.dumps(PENGUIN)]}
    body = {"inputs": [entry], "outputs": [{"name": "logits"}, {"name": "probabilities"}]}
    triton, _ = servers.send(Row("/v2/models/penguins_raw/infer", body, model="penguins"))
    reply = servers.mlscale["penguins"].ask("/v2/models/penguins/infer", body)
    first, second = ({output["name"]: output for output in one.json["outputs"]} for one in (triton, reply))
    assert first == second
    (answer,) = servers.mlscale["penguins"].ask("/predict", PENGUIN).json["predictions"]
    assert answer["probabilities"] == first["probabilities"]["data"]
