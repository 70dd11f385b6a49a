"""Serves the metrics of the last check at `/metrics`, for Prometheus to scrape while `watch=true` runs."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from mlscale.errors import Exit, MLScaleError
from mlscale.monitor.exporters.metrics_text import CONTENT_TYPE


class MetricsServer:
    """An HTTP server in threads of its own, inside the block.

    Args:
        host: the address to listen on.
        port: 0 for a free one.

    Raises:
        MLScaleError: the port is taken (exit code 5).
    """

    def __init__(self, host: str, port: int) -> None:
        self._text: bytes | None = None
        try:
            self._server = _ThreadedServer((host, port), _build_handler(self))
        except OSError as error:
            raise MLScaleError(
                f"can't serve metrics at {host}:{port}",
                where="prometheus.port",
                why=error.strerror or type(error).__name__,
                fix="prometheus.port=<a free port>",
                exit=Exit.ENVIRONMENT,
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish_text(self, text: str) -> None:
        """Serve `text` from now on."""
        self._text = text.encode()

    def get_response(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of a response."""
        if path.partition("?")[0] != "/metrics":
            return 404, b"metrics are at /metrics\n"
        # 503 until the first check is done: an empty page would look like a monitor without any model.
        return (503, b"no check yet\n") if self._text is None else (200, self._text)


class _ThreadedServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def _build_handler(metrics: MetricsServer) -> type[BaseHTTPRequestHandler]:
    class ScrapeHandler(BaseHTTPRequestHandler):
        timeout = 10  # seconds: a client that sends nothing must not keep a thread for good

        def do_GET(self) -> None:
            status, body = metrics.get_response(self.path)
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE if status == 200 else "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: standard error has the lines of the checks."""

    return ScrapeHandler
