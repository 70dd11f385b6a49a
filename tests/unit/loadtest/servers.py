"""A small real server of the protocols that a load test speaks: it answers by the sum of a sample's values."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.loadtest import empty_server
from mlscale.loadtest.client_calibration import build_response_bytes

CLASSES, SHAPE = 3, (1, 4, 4)
Answer = tuple[int, dict[str, str], bytes]


def label(sample: NDArray[Any]) -> str:
    """The right class of a sample."""
    return "abc"[int(sample.sum()) % CLASSES]


class Server(ThreadingHTTPServer):
    """`spoil` may put another answer in the place of the right one; `asked` counts requests for a prediction."""

    daemon_threads = True
    spoil: Callable[[Answer, int], Answer | None] = staticmethod(lambda answer, number: answer)
    asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v2/models/sums":
            given = {"name": "input", "datatype": "UINT8", "shape": [-1, *SHAPE]}
            gives = {"name": "probabilities", "datatype": "FP32", "shape": [-1, CLASSES]}
            self._json({"name": "sums", "versions": ["sums:v1"], "inputs": [given], "outputs": [gives]})
        else:
            self._json({"error": "Request for unknown model: 'x' is not found"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/v2/repository/index":
            return self._json([{"name": "sums", "version": "sums:v1", "state": "READY"}])
        self.server.asked += 1
        answer = self.server.spoil(self._answer(body), self.server.asked)
        if answer is None:  # not a word
            self.close_connection = True
            return None
        return self._send(*answer)

    def _answer(self, body: bytes) -> Answer:
        if self.path == "/predict":
            octets = self.headers["Content-Type"] == "application/octet-stream"
            raw = np.frombuffer(body, np.uint8) if octets else np.array(json.loads(body)["inputs"], np.uint8)
            raw = raw.reshape(-1, *SHAPE)
            printed = [{"label": label(x), "probabilities": p} for x, p in zip(raw, _probabilities(raw), strict=True)]
            return _of({"model": "sums", "model_version": "sums:v1", "predictions": printed})
        length = int(self.headers["Inference-Header-Content-Length"] or len(body))
        (tensor,) = json.loads(body[:length])["inputs"]
        data = np.frombuffer(body[length:], np.uint8) if len(body) > length else np.array(tensor["data"], np.uint8)
        raw = data.reshape(tensor["shape"])
        out: dict[str, Any] = {"name": "probabilities", "datatype": "FP32", "shape": [len(raw), CLASSES]}
        document = {"model_name": "sums", "model_version": "sums:v1", "outputs": [out]}
        if len(body) == length:
            out["data"] = np.ravel(_probabilities(raw)).tolist()
            return _of(document)
        content = np.array(_probabilities(raw), "<f4").tobytes()
        out["parameters"] = {"binary_data_size": len(content)}
        header = json.dumps(document).encode()
        return 200, {"Inference-Header-Content-Length": str(len(header))}, header + content

    def _json(self, document: Any, status: int = 200) -> None:
        self._send(status, {}, json.dumps(document).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def fast_server(folder: Path) -> Iterator[str]:
    """A server in a process of its own that gives one answer to everything, at once: a model's description, and a
    prediction for one sample."""
    given = {"name": "input", "datatype": "UINT8", "shape": [-1, *SHAPE]}
    gives = {"name": "probabilities", "datatype": "FP32", "shape": [-1, CLASSES]}
    prediction = {"label": "a", "probabilities": [0.8, 0.1, 0.1]}
    document = {"inputs": [given], "outputs": [gives], "model_version": "sums:v1", "predictions": [prediction]}
    answer = folder / "answer"
    answer.write_bytes(build_response_bytes({"Content-Type": "application/json"}, json.dumps(document).encode()))
    command = [sys.executable, "-P", empty_server.__file__, str(answer)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.communicate()  # the end of its input is its end


def _of(document: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(document).encode()


def _probabilities(raw: NDArray[Any]) -> list[list[float]]:
    return [[0.8 if label(sample) == name else 0.1 for name in "abc"] for sample in raw]


class RowServer(Server):
    """A server of a model of rows, which answers with a number each; `received` has the JSON documents."""

    received: list[Any]


class _RowHandler(_Handler):
    server: RowServer

    def do_GET(self) -> None:
        columns = [
            {"name": "a", "type": "number", "minimum": 0.0, "maximum": 1.0},
            {"name": "c", "type": "category", "categories": ["x", "y"]},
        ]
        self._json(
            {
                "name": "rows",
                "versions": ["rows:v1"],
                "inputs": [
                    {"name": "numbers", "datatype": "FP64", "shape": [-1, 1]},
                    {"name": "texts", "datatype": "BYTES", "shape": [-1, 1]},
                ],
                "outputs": [{"name": "value", "datatype": "FP32", "shape": [-1, 1]}],
                "parameters": {
                    "raw_input": {"type": "table", "columns": columns},
                    "columns": {"numbers": ["a"], "texts": ["c"]},
                },
            }
        )

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/v2/repository/index":
            return self._json([{"name": "rows", "version": "rows:v1", "state": "READY"}])
        self.server.asked += 1
        length = int(self.headers["Inference-Header-Content-Length"] or len(body))
        document = json.loads(body[:length])
        self.server.received.append(document)
        if self.path == "/predict":
            values = [{"value": 1.5, "unit": "mm"} for _ in document["inputs"]]
            return self._json({"model": "rows", "model_version": "rows:v1", "predictions": values})
        count = document["inputs"][0]["shape"][0]
        out = {"name": "value", "datatype": "FP32", "shape": [count, 1], "data": [1.5] * count}
        return self._json({"model_name": "rows", "model_version": "rows:v1", "outputs": [out]})


@contextlib.contextmanager
def serving_rows() -> Iterator[RowServer]:
    """A server of a model of rows on a free port."""
    server = RowServer(("127.0.0.1", 0), _RowHandler)
    server.received = []
    with _running(server):
        yield server


@contextlib.contextmanager
def serving(spoil: Callable[[Answer, int], Answer | None] | None = None) -> Iterator[Server]:
    """A server on a free port, which answers until the block ends."""
    server = Server(("127.0.0.1", 0), _Handler)
    if spoil is not None:
        server.spoil = spoil
    with _running(server):
        yield server


@contextlib.contextmanager
def _running(server: Server) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
