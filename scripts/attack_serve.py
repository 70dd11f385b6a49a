# ruff: noqa: E501 - a hostile request a line
"""What hostile requests cost a server: the longest pause of its event loop, and the memory that it gains.

    python -m scripts.attack_serve
    python -m scripts.attack_serve --seed 7 --samples 8 --classes 1000 --size 224

A server of a made-up model gets each class of hostile request, several connections at once, while another connection
asks for health every few milliseconds and keeps the longest answer. What the machine itself does to such a client is
measured first, with nothing hostile; on a busy machine it is most of what is seen. The clients are another process.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mlscale.report import format_table

ROOT = Path(__file__).resolve().parents[1]
_CONNECTIONS = 4
Make = Callable[[random.Random], bytes]


def made(folder: Path, size: int, classes: int) -> Path:
    """A servable of a linear model of (3, size, size) pixels, which takes image files, too."""
    import onnx
    import yaml
    from onnx import TensorProto, helper, numpy_helper

    from mlscale.atomic_files import compute_sha256

    folder.mkdir()
    weights = np.random.default_rng(0).normal(size=(3, classes)).astype(np.float32)
    given = helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", 3, size, size])
    gives = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])
    nodes = [
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([2, 3]), "axes")]
    graph = helper.make_graph(nodes, "made", [given], [gives], constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "model.onnx"
    )
    document = yaml.safe_load((ROOT / "tests/contract/examples/servable-1/servable.yaml").read_text())
    document["inputs"] = [{"name": "input", "dtype": "uint8", "shape": [-1, 3, size, size]}]
    document["outputs"] = [{"name": "logits", "dtype": "float32", "shape": [-1, classes]}]
    document["labels"] = [f"class {n}" for n in range(classes)]
    document["name"] = "made"
    document["preprocessing"].update(channels="RGB", resize={"short_side": size, "crop": "centre"})
    path = folder / "model.onnx"
    document["files"] = {"model.onnx": {"sha256": compute_sha256(path), "bytes": path.stat().st_size}}
    (folder / "servable.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def classes_of(model: str, size: int, samples: int) -> dict[str, Make]:
    """Hostile requests by name; each is made anew from a random generator."""
    infer, pixels = f"/v2/models/{model}/infer", 3 * size * size
    octets = "Content-Type: application/octet-stream"

    def v2(entry: dict[str, object], outputs: list[object] | None = None, **more: object) -> bytes:
        given = {"name": "input", "datatype": "UINT8", "shape": [1, 3, size, size], **entry}
        return json.dumps({"inputs": [given], **({"outputs": outputs} if outputs else {}), **more}).encode()

    def json_of(count: int, text: Callable[[random.Random], str]) -> Make:
        return lambda rng: post("/predict", ('{"inputs":[' + ",".join(text(rng) for _ in range(count)) + "]}").encode())

    def filled(piece: bytes, length: int) -> Make:
        return lambda rng: post("/predict", b'{"inputs":[' + piece * (length // len(piece)) + b"0]}")

    def raw(count: int) -> bytes:
        return bytes(count * pixels)

    def tensors(count: int, wanted: list[object]) -> Make:
        head = v2({"shape": [count, 3, size, size], "parameters": {"binary_data_size": count * pixels}}, wanted)
        return lambda rng: post(infer, head + raw(count), f"Inference-Header-Content-Length: {len(head)}")

    most = [{"name": name} for name in ("logits", "probabilities", "label")]
    top = [{"name": name, "parameters": {"classification": 10**6}} for name in ("logits", "probabilities")]
    longest = 30 << 20
    return {
        "repeated outputs": lambda rng: post(infer, v2({"data": [0]}, [{"name": "logits"}] * 1000)),
        "JSON of numbers": json_of(samples, lambda rng: json.dumps([[[rng.randrange(256)] * size] * size] * 3)),
        "JSON of numbers, one too long": filled(b"0,", longest),
        "JSON of {}": filled(b"{},", longest),
        "JSON of []": filled(b"[],", longest),
        "JSON of texts": filled(b'"",', longest),
        "JSON, short, of {}": filled(b"{},", 60_000),
        "JSON, short, of exponents": filled(b"1e-300,", 60_000),
        "JSON, short, of digits": filled(b"9" * 4200 + b",", 60_000),
        "JSON, short, one long text": lambda rng: post("/predict", b'{"inputs":["' + b"a" * 40_000 + b'"' + b',""' * 6000 + b"]}"),
        "JSON, deep": filled(b"[", 60_000),
        "a shape of 10^18": lambda rng: post(infer, v2({"shape": [10**18, 3, size, size], "data": [0]})),
        "a shape of 10000 sizes": lambda rng: post(infer, v2({"shape": [1] * 10_000, "data": [0]})),
        "10000 inputs": lambda rng: post(infer, json.dumps({"inputs": [{"name": "input"}] * 2500}).encode()),
        "a name of 60 KB": lambda rng: post(infer, v2({"name": "\x01" * 10_000, "data": []})),
        "bytes, as many as may be": lambda rng: post("/predict", raw(min(1024, (60 << 20) // pixels)), octets),
        "bytes, too many": lambda rng: post("/predict", bytes(64 << 20), octets),
        "gzip of zeros": lambda rng: post("/predict", gzip.compress(bytes(60 << 20)), octets, "Content-Encoding: gzip"),
        "gzip of JSON": lambda rng: post("/predict", gzip.compress(b'{"inputs":[' + b"0," * (10 << 20)), "Content-Encoding: gzip"),
        "all outputs as JSON": tensors(samples, [*most]),
        "all outputs as JSON, gzip": lambda rng: tensors(samples, [*most])(rng).replace(b"\r\n", b"\r\nAccept-Encoding: gzip\r\n", 1),
        "classification of all": tensors(samples, [*top]),
        "labels": lambda rng: post("/labels", json.dumps([{"id": f"{rng.random()}", "label": "1"}] * 9999).encode(), "Content-Type: application/json"),
        "labels, too many": lambda rng: post("/labels", b"[" + b'{"id":"a","label":1},' * 90_000 + b"{}]", "Content-Type: application/json"),
        "many headers": lambda rng: b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"%x:\r\n" % n for n in range(4000)) + b"\r\n",
        "one endless header": lambda rng: b"GET / HTTP/1.1\r\na: " + b"b" * (8 << 20),
        "pipelined": lambda rng: b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000,
        "pipelined, small": lambda rng: b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20_000,
        "chunks of one byte": lambda rng: b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + octets.encode() + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n0\r\n" * 300_000 + b"0\r\n\r\n",
    }  # fmt: skip


class Probe:
    """Asks for health on one connection, and keeps how long the slowest answer took."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.longest, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            begin = time.perf_counter()
            self._socket.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self._socket.recv(4096)
            self.longest = max(self.longest, time.perf_counter() - begin)
            time.sleep(0.002)

    def close(self) -> None:
        """Stop asking."""
        self._over.set()
        self._thread.join()
        self._socket.close()


def memory_mb(pid: int) -> float:
    """Resident memory, now."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def send(port: int, requests: list[bytes]) -> dict[str, int]:
    """Send each on a connection of its own, in another process; how often each status came first."""
    code = """
import asyncio, json, sys
from pathlib import Path
async def one(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async def write():
        try:
            writer.write(Path(path).read_bytes()); writer.write_eof(); await writer.drain()
        except OSError: pass
    task = asyncio.create_task(write()); first = b""
    try:
        while part := await asyncio.wait_for(reader.read(1 << 16), 60):
            first = first or part
    except OSError: pass
    task.cancel(); writer.close()
    return first[9:12].decode() or "closed"
async def main():
    print(json.dumps(await asyncio.gather(*(one(int(sys.argv[1]), path) for path in sys.argv[2:]))))
asyncio.run(main())
"""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for n, request in enumerate(requests):
            paths.append(Path(folder, str(n)))
            paths[-1].write_bytes(request)
        run = subprocess.run([sys.executable, "-c", code, str(port), *map(str, paths)], capture_output=True, text=True)
    statuses = json.loads(run.stdout)
    return {status: statuses.count(status) for status in sorted(set(statuses))}


def attacks(pid: int, port: int, requests: dict[str, Make], rng: random.Random) -> Iterator[list[object]]:
    """A row for each class: its statuses, the longest pause in ms, and the memory gained in MB, at most."""
    for name, make in {"nothing": None, **requests}.items():
        sent = [make(rng) for _ in range(_CONNECTIONS)] if make else []
        before, most, over = memory_mb(pid), [0.0], threading.Event()

        def watch(most: list[float] = most, over: threading.Event = over) -> None:
            while not over.wait(0.01):
                most[0] = max(most[0], memory_mb(pid))

        thread = threading.Thread(target=watch)
        thread.start()
        probe = Probe(port)
        statuses: dict[str, int] = {}
        if make:
            statuses = send(port, sent)
        else:
            time.sleep(2)
        probe.close()
        over.set()
        thread.join()
        told = ", ".join(f"{count} × {status}" for status, count in statuses.items() if status)
        yield [
            name,
            f"{max(map(len, sent), default=0):,}",
            told,
            f"{1000 * probe.longest:.0f}",
            f"{most[0] - before:.0f}",
        ]


def main() -> None:
    """Attack and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--size", type=int, default=64, help="height and width of the images")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=32, help="of the requests that are allowed")
    parser.add_argument("--only", default="", help="classes with this in their names")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [
            f"ref={made(folder / 'made', args.size, args.classes)}",
            "port=0",
            f"ready_file={folder / 'ready'}",
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mlscale", "serve", *words]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            while not (folder / "ready").exists():
                time.sleep(0.05)
            port = int(json.loads((folder / "ready").read_text())["url"].rpartition(":")[2])
            requests = {
                key: make for key, make in classes_of("made", args.size, args.samples).items() if args.only in key
            }
            rows = list(attacks(process.pid, port, requests, random.Random(args.seed)))
        finally:
            process.terminate()
            process.wait()
    print(f"seed {args.seed}, images of {args.size} × {args.size}, {args.classes} classes, {_CONNECTIONS} connections")
    print(format_table(rows, ("request", "bytes", "answers", "longest pause ms", "memory MB"), 200))


if __name__ == "__main__":
    main()
