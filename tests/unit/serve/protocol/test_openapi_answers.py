"""What a server really answers, of every status, is what /openapi.json says of it; and what it takes is in there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from mlscale.serve.protocol import openapi
from mlscale.serve.protocol import predict_route as predict
from mlscale.serve.served_model import load_model
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames, TargetColumn
from tests.made_servables import make_table_servable
from tests.serving import RAW, STORED, Server, pixels, serving

KEY = "a key of more than sixteen".replace(" ", "-")
TRUSTED = {"x-api-key": KEY}
JSON = {**TRUSTED, "Content-Type": "application/json"}
ONE = pixels(1).tobytes()
LABEL = json.dumps({"id": "x", "label": "3"}).encode()


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    words = (f"api_key={KEY}", "max_labels_per_hour=2", "max_connections=4", "timeout_s=1", "max_body_bytes=20000")
    with serving(tmp_path_factory.mktemp("limited"), STORED, *words) as one:
        yield one
        assert one.stop() == 0


def send_bytes(server: Server, request: bytes) -> tuple[int, Any]:
    """Send a request as it is; return status and body."""
    with server.socket() as client:
        client.sendall(request)
        received = b""
        while not received.endswith(b"}"):
            piece = client.recv(65536)
            assert piece, received
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def send_when_full(server: Server, path: str, body: bytes) -> tuple[int, Any]:
    """Send a request while all connections are in use."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    with contextlib.ExitStack() as others:
        # Connections of earlier requests may still be closing: until those of the others take their places.
        for _ in range(40):
            others.enter_context(server.socket())
            status, answer = send_bytes(server, head.encode() + body)
            if status == 503:
                return status, answer
    raise AssertionError("the server is never full")


def collect_answers(server: Server, path: str, good: bytes, kind: dict[str, str]) -> dict[int, Any]:
    """Return an answer of each status that the route has."""
    trusted = {**TRUSTED, **kind}
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {KEY}\r\n"
    replies = [
        server.ask(path, good, trusted),
        server.ask(path, b"{", JSON),
        server.ask(path, good, kind),
        server.ask(path, good, {**trusted, "Origin": "https://elsewhere.example"}),
        server.ask(path, b"x", {**TRUSTED, "Content-Type": "text/html"}),
        server.ask(path, good, {**trusted, "more": "x" * 40_000}),
        server.ask(path, good, {**trusted, "Transfer-Encoding": "gzip"}),
    ]
    # Before the connections are all in use, since those that close later would have this one refused.
    if path == "/labels":
        replies.append(server.ask(path, json.dumps([{"id": f"{n}", "label": 3} for n in range(3)]).encode(), trusted))
    answers = {reply.status: reply.json for reply in replies}
    answers |= dict(
        [
            send_bytes(server, f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode()),
            send_bytes(
                server, f"{head}Content-Type: {kind['Content-Type']}\r\nContent-Length: 9999999\r\n\r\n".encode()
            ),
            send_when_full(server, path, good),
        ]
    )
    return answers


@pytest.mark.parametrize(
    ("path", "good", "kind"), [("/predict", ONE, RAW), ("/labels", LABEL, JSON)], ids=["predict", "labels"]
)
def test_each_status_is_described(limited: Server, path: str, good: bytes, kind: dict[str, str]) -> None:
    document = limited.ask("/openapi.json", headers=TRUSTED).json
    responses = document["paths"][path]["post"]["responses"]
    answers = collect_answers(limited, path, good, {name: value for name, value in kind.items() if name not in TRUSTED})
    # A model that fails, or a bug, can't be provoked from outside.
    assert sorted(map(str, answers)) == sorted(set(responses) - {"500"})
    for status, body in answers.items():
        schema = responses[str(status)]["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": document["components"]}).validate(body)


def test_a_server_without_events_has_no_labels_and_one_without_key_no_401(strict: Server) -> None:
    document = strict.ask("/openapi.json").json
    assert list(document["paths"]) == ["/predict"]
    assert "401" not in document["paths"]["/predict"]["post"]["responses"]


def test_truth_values_and_the_id_of_a_row_are_described(tmp_path: Path) -> None:
    rows = {"member": ["true", "false", "true"], "paid": np.array([0.0, 1.0, 1.0]), "age": np.array([20.0, 30.5, 40.0])}
    folder = make_table_servable(tmp_path / "shop", rows)
    model = load_model(folder, name="shop", version="shop:v1", threads=1, max_batch=4)
    document = openapi.build_openapi_document(model, needs_key=False, takes_labels=True)
    schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = Draft202012Validator({**schema, "components": document["components"]})
    row = {"member": True, "paid": False, "age": 33}
    taken: list[Any] = [row, *({**row, "id": id_} for id_ in ("order-17", 17, None)), {"inputs": [row], "id": None}]
    for given in taken:
        body.validate(given)
        assert predict.parse_predict_request(model, {}, json.dumps(given).encode()).samples.size == 1
    assert "id" in document["components"]["schemas"]["Sample"]["properties"]
    for id_ in (True, 1.5, "x" * 201):
        assert not body.is_valid({**row, "id": id_})
        with pytest.raises(Exception, match="an id is a text"):
            predict.parse_predict_request(model, {}, json.dumps({**row, "id": id_}).encode())


CLASSES = AnswerNames(("cat", "dog"))
TARGETS = AnswerNames(targets=(TargetColumn("rent", "EUR"), TargetColumn("rooms")))
RENT = AnswerNames(targets=TARGETS.targets[:1])
LABELS: list[tuple[str, AnswerNames, list[Any]]] = [
    ("classification", CLASSES, ["cat", 1, 2, "owl", None, 1.5, []]),
    ("multilabel", CLASSES, [["cat", 1], [], ["owl"], 1, None]),
    ("regression", AnswerNames(), [1.5, 2, {"a": 1}, None, True, [1]]),
    ("regression", RENT, [1.5, {"rent": 1}, {"b": 1}, None]),
    ("regression", TARGETS, [{"rent": 1, "rooms": 2}, {"rent": 1}, 3.5, None]),
    ("segmentation", CLASSES, [1, None]),
    ("language", AnswerNames(), ["a", 1, None]),
]


@pytest.mark.parametrize(("kind", "names", "values"), LABELS)
def test_a_label_is_described_as_it_is_taken(kind: str, names: AnswerNames, values: list[Any]) -> None:
    task_type = get_task_type(kind)
    schema = Draft202012Validator(task_type.describe_label(names))
    for value in values:
        try:
            task_type.parse_label(value, names)
            is_taken = True
        except ValueError:
            is_taken = False
        assert schema.is_valid(value) is is_taken
