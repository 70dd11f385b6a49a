"""A small web server that receives alerts, as a chat or a pager would."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MAX_REQUEST_BYTES = 1 << 20


@dataclass(frozen=True)
class AlertReceiver:
    """The alerts that have arrived.

    Attributes:
        alerts: the documents, in the order of their arrival.
        url: where to POST them.
    """

    alerts: list[dict[str, Any]]
    url: str


@contextlib.contextmanager
def receive_alerts() -> Iterator[AlertReceiver]:
    """Provide a receiver on a free port of this machine, until the block ends."""
    alerts: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        # The default prints each request to stderr, in the middle of the tour's output.
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            try:
                # Bounded: a request with a huge length must not fill the memory.
                document = json.loads(self.rfile.read(min(_MAX_REQUEST_BYTES, int(self.headers["Content-Length"]))))
            except (TypeError, ValueError):
                document = None
            if isinstance(document, dict):
                alerts.append(document)
            self.send_response(204 if isinstance(document, dict) else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

    # Port 0: the system chooses a free one. Only this machine can reach it.
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="mlscale-alerts", daemon=True)
    thread.start()
    try:
        yield AlertReceiver(alerts, f"http://127.0.0.1:{server.server_port}/alerts")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
