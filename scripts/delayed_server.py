"""A web server on loopback that waits before each response, and limits the bytes a second over all connections.

python -m scripts.delayed_server FOLDER SECONDS BYTES_A_SECOND      # prints its port; ended by a signal
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
_STEP = 1 << 17
_CREDIT_SECONDS = 0.05
"""Time that was lost by waking up late is made up for, up to so much: else a busy machine would be a slower server."""


class RateLimit:
    """A limit that all connections share."""

    def __init__(self, rate: float) -> None:
        self._rate, self._free_at = rate, 0.0
        self._lock = threading.Lock()

    def wait_for(self, size: int) -> None:
        """Sleep until so many bytes may be sent."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now - _CREDIT_SECONDS, self._free_at) + size / self._rate
            wait = self._free_at - now
        time.sleep(max(0.0, wait))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    delay: float
    limit: RateLimit

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        time.sleep(self.delay)
        path = self.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        match = _RANGE.match(self.headers.get("Range", ""))
        first = int(match[1]) if match else 0
        last = min(int(match[2] or size), size - 1) if match else size - 1
        self.send_response(206 if match else 200)
        if match:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("ETag", f'"{hashlib.sha1(self.path.encode(), usedforsecurity=False).hexdigest()}-{size}"')
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        with open(path, "rb") as stream:
            stream.seek(first)
            left = last + 1 - first
            while left and (content := stream.read(min(_STEP, left))):
                self.limit.wait_for(len(content))
                self.wfile.write(content)
                left -= len(content)


def main() -> None:
    folder, delay, rate = sys.argv[1:4]
    fields = {"folder": Path(folder), "delay": float(delay), "limit": RateLimit(float(rate))}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), fields))
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
