"""A real server in a process of its own, real sockets, and clients that write their requests by hand."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from tests.forked import Command

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "tests" / "contract" / "examples" / "servable-1"
"""A classifier of digits, uint8 (n, 1, 8, 8)."""
RAW = {"Content-Type": "application/octet-stream"}
_SECONDS = 60.0


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: subprocess.Popen[str]
    url: str
    version: str
    log: Path

    @property
    def place(self) -> tuple[str, int]:
        """Its host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def connection(self) -> http.client.HTTPConnection:
        """A connection that is kept."""
        return http.client.HTTPConnection(*self.place, timeout=_SECONDS)

    def ask(
        self, path: str, body: bytes | object = None, headers: Mapping[str, str | bytes] | None = None, method: str = ""
    ) -> Reply:
        """One request on a connection of its own; see `ask`."""
        with contextlib.closing(self.connection()) as connection:
            return ask(connection, path, body, headers, method)

    def socket(self) -> socket.socket:
        """A bare socket."""
        return socket.create_connection(self.place, timeout=_SECONDS)

    def metric(self, name: str) -> float:
        """The value of a series on /metrics."""
        lines = self.ask("/metrics").body.decode().splitlines()
        return float(next(line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == name))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(_SECONDS)

    @property
    def printed(self) -> str:
        """Its stderr so far."""
        return self.log.read_text()


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    body: bytes | object = None,
    headers: Mapping[str, str | bytes] | None = None,
    method: str = "",
) -> Reply:
    """One request on a connection that is kept: GET without a body, else POST; what is no bytes goes as JSON."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    kind = {} if body is None or isinstance(body, bytes) else {"Content-Type": "application/json"}
    connection.request(method or ("GET" if content is None else "POST"), path, content, {**kind, **(headers or {})})
    response = connection.getresponse()
    return Reply(response.status, dict(response.getheaders()), response.read())


@contextlib.contextmanager
def serving(
    folder: Path,
    servable: str | Path = STORED,
    *words: str,
    path: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A server that has begun to answer; killed at the end, unless it has been stopped. `path` is searched first for
    modules; `environ` is added to its environment."""
    log, ready = folder / "server.log", folder / "ready.json"
    ready.unlink(missing_ok=True)
    command = ["serve", f"ref={servable}", "port=0", f"ready_file={ready}", *words]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT)))),
        "OMP_NUM_THREADS": "1",
        **(environ or {}),
    }
    with log.open("w") as stderr, (folder / "server.out").open("w") as stdout:
        process = Command(*command, cwd=folder, env=environment, stdout=stdout, stderr=stderr)
        try:
            end = time.monotonic() + _SECONDS
            while not ready.exists():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, "it does not become ready"
                time.sleep(0.02)
            printed = json.loads(ready.read_text())
            assert printed["pid"] == process.pid
            yield Server(process, printed["url"], printed["version"], log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def wait_for(what: Any, seconds: float = _SECONDS) -> None:
    """Wait until `what()` is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def pixels(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Samples of the stored servable, uint8 (n, 1, 8, 8)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 8, 8), np.uint8)
