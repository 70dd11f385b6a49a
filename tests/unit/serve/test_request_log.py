"""Traces and ids of requests: returned, kept with the event, and written to the access log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.serve.http.request_log import read_request_id, read_traceparent
from tests.serving import RAW, STORED, serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
SAMPLE = np.zeros(64, np.uint8).tobytes()
INFER = "/v2/models/digits/infer"
BODY: dict[str, Any] = {"inputs": [{"name": "input", "datatype": "UINT8", "shape": [1, 1, 8, 8], "data": [0] * 64}]}


@pytest.mark.parametrize(
    ("given", "is_valid"),
    [
        (PARENT, True),
        (f"01-{TRACE}-00f067aa0ba902b7-00-more", True),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (PARENT.upper(), False),
        (PARENT + "\r\nx: y", False),
        (PARENT + "-" + "x" * 300, False),
        ("", False),
    ],
)
def test_traces_are_those_of_the_standard(given: str, is_valid: bool) -> None:
    assert read_traceparent({b"traceparent": given.encode()}) == (given.encode() if is_valid else b"")


def test_ids_of_headers() -> None:
    assert read_request_id({b"triton-request-id": b"a-1", b"x-request-id": b"b"}) == "a-1"
    assert read_request_id({b"x-request-id": b"b"}) == "b"
    assert read_request_id({}) == read_request_id({b"x-request-id": b"a b"}) == ""
    assert read_request_id({b"x-request-id": b"a" * 201}) == ""


def test_a_request_is_found_again(tmp_path: Path) -> None:
    headers = {"traceparent": PARENT, "triton-request-id": "order-17"}
    with serving(tmp_path, STORED, "access_log=true") as server:
        answered = server.ask(INFER, BODY, headers)
        named = server.ask(INFER, {**BODY, "id": "own"}, headers)
        refused = server.ask(INFER, {}, headers)
        unnamed = server.ask(INFER, {"inputs": []})
        own = server.ask(INFER, {"id": "own-2", "inputs": []}, headers)
        absent = server.ask("/v2/models/other/infer", BODY, headers)
        early = server.ask("/predict", b"x" * 100, {**RAW, **headers, "Transfer-Encoding": "gzip"})
        invalid = server.ask("/predict", SAMPLE, {**RAW, "traceparent": "00-1-2-3"})
        server.stop()
        lines = [json.loads(line) for line in server.printed.splitlines() if line.startswith("{")]
    assert [reply.headers.get("traceparent") for reply in (answered, named, refused)] == [PARENT] * 3
    assert "traceparent" not in invalid.headers
    assert [reply.headers["mlscale-id"] for reply in (answered, named)] == ["order-17", "own"]
    # As in Triton, only an id of the body is in the body.
    assert "id" not in answered.json
    assert named.json["id"] == "own"
    assert [(line["route"], line["status"], line.get("id"), line.get("trace")) for line in lines] == [
        ("infer", 200, "order-17", TRACE),
        ("infer", 200, "own", TRACE),
        ("infer", refused.status, "order-17", TRACE),
        ("infer", unnamed.status, unnamed.headers["mlscale-id"], None),
        ("infer", own.status, "own-2", TRACE),
        ("v2", 404, "order-17", TRACE),
        ("unread", 501, "order-17", TRACE),
        ("predict", 200, invalid.headers["mlscale-id"], None),
    ]
    # The client gets the id that is in the log.
    assert [reply.headers["mlscale-id"] for reply in (refused, own, absent, early)] == [
        "order-17", "own-2", "order-17", "order-17",
    ]  # fmt: skip
    assert len(unnamed.headers["mlscale-id"]) == 24
    assert all(line["ms"] > 0 and line["time"] for line in lines)


def test_no_log_without_the_setting(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert server.ask("/predict", SAMPLE, RAW).status == 200
        server.stop()
        lines = [line for line in server.printed.splitlines() if not line.startswith("try it")]
        assert "predict" not in "\n".join(lines)
