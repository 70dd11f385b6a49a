"""The header `Server-Timing`: what the server itself took for an answer, apart from the network and the client."""

import re
import time
from typing import Any

import pytest

from tests.serving import RAW, Server, pixels

_HEADER = re.compile(r"queue;dur=(\d+\.\d+), compute;dur=(\d+\.\d+), total;dur=(\d+\.\d+)")
_TENSOR = {"name": "input", "datatype": "UINT8", "shape": [1, 1, 8, 8], "data": pixels(1).ravel().tolist()}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/predict", pixels(1).tobytes(), RAW),
        ("/predict", {"inputs": pixels(40).tolist()}, {}),  # more than a batch: computed in a thread
        ("/v2/models/digits/infer", {"inputs": [_TENSOR]}, {}),
    ],
)
def test_parts_are_no_more_than_the_whole(server: Server, path: str, body: Any, headers: dict[str, str]) -> None:
    begin = time.perf_counter()
    reply = server.ask(path, body, headers)
    took_ms = 1000 * (time.perf_counter() - begin)
    match = _HEADER.fullmatch(reply.headers["Server-Timing"])
    assert (reply.status, match is not None) == (200, True)
    assert match is not None
    queue, compute, total = map(float, match.groups())
    assert compute > 0
    assert queue + compute <= total + 0.01  # rounded to 0.001 ms
    assert total <= took_ms


def test_what_computes_nothing_has_no_times(server: Server) -> None:
    assert "Server-Timing" not in server.ask("/v2/health/live").headers
    assert "Server-Timing" not in server.ask("/predict", {"inputs": "x"}).headers
