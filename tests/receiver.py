"""A web server that takes alerts, or behaves as badly as told."""

import contextlib
import json
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


class Receiver:
    """Takes POSTs on a free port of 127.0.0.1, inside the block.

    Args:
        answers: the status of each answer in turn, the last one for good; 0 never answers, -1 answers a byte at a time,
            -2 resets the connection once it has the document.
        delay_s: seconds until it answers.
    """

    def __init__(self, *answers: int, delay_s: float = 0.0) -> None:
        self.alerts: list[dict[str, Any]] = []  # that were answered with 200
        self.keys: list[str] = []  # of all that came: the header Idempotency-Key
        self.delay_s = delay_s
        self.asked = 0
        self._answers = list(answers or (200,))
        self._over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._post(self)

            def log_message(self, *_: object) -> None:
                pass

            def finish(self) -> None:
                with contextlib.suppress(OSError, ValueError):  # a connection that was reset
                    super().finish()

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """A client that has left is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/a-secret-of-the-address"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _post(self, request: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        status = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        body = request.rfile.read(int(request.headers["Content-Length"]))
        self.keys.append(request.headers.get("Idempotency-Key", ""))
        self._over.wait(self.delay_s)
        if status == -2:
            # With this option a close is a reset.
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
            return
        if status == 0:
            self._over.wait(30)
            return
        if status == -1:
            while not self._over.is_set():
                try:
                    request.wfile.write(b"H")
                except OSError:
                    return
                time.sleep(0.05)
            return
        if status == 200:
            assert request.headers["Content-Type"] == "application/json"
            self.alerts.append(json.loads(body))
        request.send_response(status)
        if status in (301, 302, 307):
            request.send_header("Location", self.url + "/elsewhere")
        request.send_header("Content-Length", "0")
        request.end_headers()
