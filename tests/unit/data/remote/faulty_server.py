"""A web server on loopback that gives ranges, and fails as it is asked to: it drops, stalls, corrupts and refuses."""

from __future__ import annotations

import hashlib
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")


@dataclass
class Faults:
    """What goes wrong, by the seed: the share of requests of each kind; the first byte of each file is left alone.

    Attributes:
        drop: the connection ends in the middle.
        stall: nothing comes after the middle.
        corrupt: a byte is another one.
        refuse: HTTP status 503.
        ranges: parts of files are given.
        etag: files have an ETag; else the time of their last change.
        redirect: where requests are sent on to.
        delay: seconds before each response.
        bandwidth: bytes a second and connection; 0 for all that is possible.
        most: faults after which all goes well.
        headers: of each response, in place of the right ones.
        status: of each response, in place of 200 and 206; 0 for these.
    """

    seed: int = 0
    drop: float = 0.0
    stall: float = 0.0
    corrupt: float = 0.0
    refuse: float = 0.0
    ranges: bool = True
    etag: bool = True
    redirect: str = ""
    delay: float = 0.0
    bandwidth: float = 0.0
    most: int = 10**9
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    random: random.Random = field(init=False)
    done: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def draw(self) -> str:
        with self.lock:
            number = self.random.random()
            for kind in ("drop", "stall", "corrupt", "refuse"):
                share = getattr(self, kind)
                if number < share and sum(self.done.values()) < self.most:
                    self.done[kind] += 1
                    return kind
                number -= share
        return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    faults: Faults

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        faults, path = self.faults, self.root / unquote(urlsplit(self.path).path).lstrip("/")
        if getattr(self.server, "is_closed", False):  # a connection that a client has kept
            self.close_connection = True
            return
        with faults.lock:
            faults.requests.append((self.path, self.headers.get("Range", "")))
        if faults.delay:
            time.sleep(faults.delay)
        if faults.redirect:
            self._answer(302, b"", Location=faults.redirect)
            return
        if not path.is_file():
            self._answer(404, b"")
            return
        content = path.read_bytes()
        mark = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'} if faults.etag else {}
        if not faults.etag:
            mark["Last-Modified"] = self.date_time_string(int(os.stat(path).st_mtime))
        match = _RANGE.match(self.headers.get("Range", "")) if faults.ranges else None
        if match is None:
            self._send(200, content, path, mark)
            return
        first = int(match[1])
        last = min(int(match[2] or len(content)), len(content) - 1)
        if first >= len(content):
            self._answer(416, b"", **{"Content-Range": f"bytes */{len(content)}"})
            return
        mark["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], path, mark)

    def _send(self, status: int, content: bytes, path: Path, headers: dict[str, str]) -> None:
        # Sizes, indexes and documents are answered at once: what is tested are transfers of shards.
        fault = self.faults.draw() if len(content) > 64 and path.suffix not in (".json", ".npz") else ""
        if fault == "refuse":
            self._answer(503, b"busy")
            return
        if fault == "corrupt":
            at = len(content) // 2
            content = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]
        self.send_response(self.faults.status or status)
        for name, value in {**headers, "Content-Length": str(len(content)), **self.faults.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        end = len(content) // 2 if fault in ("drop", "stall") else len(content)
        try:
            self._write(content[:end])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            return
        with self.faults.lock:
            self.faults.sent[path.name] += end
        if fault == "stall":
            time.sleep(2)
        self.close_connection = bool(fault in ("drop", "stall"))

    def _write(self, content: bytes) -> None:
        step = 1 << 18
        for start in range(0, len(content), step):
            begun = time.perf_counter()
            part = content[start : start + step]
            self.wfile.write(part)
            if self.faults.bandwidth:
                time.sleep(max(0.0, len(part) / self.faults.bandwidth - (time.perf_counter() - begun)))

    def _answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    is_closed = False

    def server_close(self) -> None:
        super().server_close()
        self.is_closed = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients that leave are part of the tests."""


@contextmanager
def serve_folder(root: Path, faults: Faults | None = None) -> Iterator[tuple[str, Faults]]:
    """Serve a folder, and yield its address and its faults, which may be changed."""
    faults = faults or Faults()
    handler = type("Handler", (_Handler,), {"root": root, "faults": faults})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
