"""What a request costs: `mlscale serve`, uvicorn with a raw ASGI application, and FastAPI, each with the same servable.

    python -m scripts.bench_serve
    python -m scripts.bench_serve --clients 1 8 32 --rounds 5 --seconds 3

Every server runs alone on one core, the clients on another; rounds are interleaved, so that a machine that slows down
slows all of them. The clients keep their connections, ask without a pause and read every answer; a wrong one ends the
benchmark. Printed: requests/s, p50 and p99, and the CPU time of the server per request, which another job on the
machine disturbs less; the median over the rounds, and the ratios to the peer (the median of the ratios of each round).

The peers answer as people write it: a sample at a time, computed in the event loop, nothing kept. They come from a
folder that is made with `pip install --target`, or from `--peers`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import uvloop

from mlscale.export.servable import Servable, load
from mlscale.report import format_table

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "tests" / "contract" / "examples" / "servable-1"
WARM_UP = 0.3  # share of a round that is not counted
PEER = """
import json, os, sys
import numpy as np
from mlscale.export.servable import load
servable = load(sys.argv[1])
shape, dtype = servable.input.shape[1:], servable.input.dtype

def answer(raw):
    said = servable.predict(raw)
    rows = zip(said.labels, said.classes.tolist(), said.probabilities.tolist())
    return {"predictions": [{"label": l, "class": c, "confidence": p[c], "probabilities": p} for l, c, p in rows]}

if sys.argv[2] == "asgi":
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        raw = np.frombuffer(b"".join(parts), dtype).reshape(-1, *shape)
        body = json.dumps(answer(raw)).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})
else:
    from fastapi import FastAPI
    from pydantic import BaseModel
    app = FastAPI()
    class Prediction(BaseModel):
        label: str
        confidence: float
        probabilities: list[float]
    class Answer(BaseModel):
        predictions: list[Prediction]
    class Asked(BaseModel):
        inputs: list[list[list[list[int]]]]
    @app.post("/predict", response_model=Answer)
    async def predict(asked: Asked):
        return answer(np.array(asked.inputs, dtype))

import uvicorn
options = {"http": "httptools", "loop": "uvloop", "access_log": False, "log_level": "error"}
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[3]), **options)
"""


@dataclass(frozen=True)
class Contender:
    """A server and how it is asked."""

    name: str
    kind: str
    words: tuple[str, ...] = ()
    body: str = "bytes"


CONTENDERS = (
    Contender("mlscale, bytes", "mlscale"),
    Contender("mlscale, bytes, no events", "mlscale", ("events=null",)),
    Contender("uvicorn, raw ASGI, bytes", "asgi"),
    Contender("mlscale, JSON", "mlscale", body="json"),
    Contender("FastAPI, JSON", "fastapi", body="json"),
)
AGAINST = {0: 2, 1: 2, 3: 4}  # whose ratio to whom


@dataclass(frozen=True)
class Round:
    """What came of one contender in one round."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


class Client(asyncio.Protocol):
    """Asks the same on one connection, again and again."""

    def __init__(self, request: bytes, label: bytes, times: list[tuple[float, float]]) -> None:
        self.request, self.label, self.times = request, label, times
        self.wrong: bytes = b""
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200") or self.label not in body:
            self.wrong = self._buffer
            self.transport.close()
            return
        now = time.perf_counter()
        self.times.append((now, now - self._begin))
        self._ask()

    def _ask(self) -> None:
        self._buffer, self._begin = b"", time.perf_counter()
        self.transport.write(self.request)


def measure(port: int, request: bytes, label: bytes, clients: int, seconds: float, pid: int) -> Round:
    """Ask for some seconds."""
    times: list[tuple[float, float]] = []

    async def main() -> float:
        loop = asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: Client(request, label, times), "127.0.0.1", port)
            for _ in range(clients)
        ]
        await asyncio.sleep(seconds * WARM_UP)
        times.clear()
        begin, cpu = time.perf_counter(), cpu_seconds(pid)
        await asyncio.sleep(seconds * (1 - WARM_UP))
        spent, count, wall = cpu_seconds(pid) - cpu, len(times), time.perf_counter() - begin
        for transport, client in made:
            if client.wrong:
                raise SystemExit(f"a wrong answer: {client.wrong!r}")
            transport.abort()
        taken = sorted(1000 * latency for _, latency in times[:count])
        result.append(Round(count / wall, taken[count // 2], taken[int(0.99 * count)], 1e6 * spent / count))
        return wall

    result: list[Round] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return result[0]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, all its threads; by the scheduler, since clock ticks are 10 ms."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


@contextlib.contextmanager
def running(contender: Contender, servable: Path, peers: Path, core: int) -> Iterator[tuple[int, int]]:
    """Start a server on its core; its port and process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if contender.kind == "mlscale":
        words = ["-m", "mlscale", "serve", str(servable), f"port={port}", *contender.words]
    else:
        words = ["-c", PEER, str(servable), contender.kind, str(port)]
    paths = [str(ROOT), *([str(peers)] if contender.kind != "mlscale" else [])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(
            [sys.executable, *words], env=env, cwd=folder, stdout=nowhere, stderr=None if core < 0 else nowhere
        )
        try:
            if core >= 0:
                os.sched_setaffinity(process.pid, {core})
            end = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{contender.name} does not start")
                time.sleep(0.05)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()


def requests_of(servable: Servable) -> tuple[dict[str, bytes], bytes]:
    """One request by kind of body, and what its answer must hold."""
    raw = np.random.default_rng(0).integers(0, 200, (1, *servable.input.shape[1:])).astype(servable.input.dtype)
    bodies = {
        "bytes": (b"application/octet-stream", raw.tobytes()),
        "json": (b"application/json", json.dumps({"inputs": raw.tolist()}).encode()),
    }
    made = {
        name: b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (kind, len(body), body)
        for name, (kind, body) in bodies.items()
    }
    return made, json.dumps(servable.predict(raw).labels[0]).encode()


def install(peers: Path) -> None:
    """Make the peers' environment."""
    if not (peers / "uvicorn").is_dir():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--target", str(peers), "uvicorn", "fastapi"], check=True
        )


def show(clients: int, rounds: Sequence[Sequence[Round]]) -> None:
    """The table of one number of clients."""
    rows: list[list[Any]] = []
    for n, contender in enumerate(CONTENDERS):
        own = [each[n] for each in rounds]
        row: list[Any] = [contender.name]
        for value in ("per_s", "p50_ms", "p99_ms", "cpu_us"):
            row.append(f"{statistics.median(getattr(each, value) for each in own):,.4g}")
        if n in AGAINST:
            for value in ("per_s", "cpu_us"):
                ratios = [getattr(each[n], value) / getattr(each[AGAINST[n]], value) for each in rounds]
                row.append(f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
        else:
            row += ["1", "1"]
        rows.append(row)
    print(f"\n{clients} client{'s' * (clients > 1)}, {len(rounds)} rounds")
    print(format_table(rows, ("", "requests/s", "p50 ms", "p99 ms", "CPU µs", "requests/s × peer", "CPU × peer"), 200))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contender in each round")
    parser.add_argument("--servable", type=Path, default=STORED)
    parser.add_argument("--peers", type=Path, default=Path(tempfile.gettempdir(), "mlscale-bench-serve"))
    args = parser.parse_args()
    install(args.peers)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[1]})
    requests, label = requests_of(load(args.servable))
    for clients in args.clients:
        rounds = []
        for _ in range(args.rounds):
            found = []
            for contender in CONTENDERS:
                with running(contender, args.servable.absolute(), args.peers, cores[0]) as (port, pid):
                    found.append(measure(port, requests[contender.body], label, clients, args.seconds, pid))
            rounds.append(found)
        show(clients, rounds)


if __name__ == "__main__":
    main()
