"""A proxy on loopback that cuts connections, or lets them hang, in the middle of what a server sends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class CuttingProxy:
    """Forwards to a server; the first `cuts` large responses end after `after` bytes.

    Args:
        target: host and port of the server.
        hangs: nothing more comes, in place of the end of the connection.
    """

    def __init__(self, target: tuple[str, int], *, cuts: int, after: int, hangs: bool = False) -> None:
        self._target, self.cuts, self._after, self._hangs = target, cuts, after, hangs
        self.done = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        server = socket.create_connection(self._target)
        threading.Thread(target=self._copy_requests, args=(client, server), daemon=True).start()
        with suppress(OSError), client, server:
            sent = 0
            while content := server.recv(1 << 16):
                sent = sent + len(content) if not content.startswith(b"HTTP/") else len(content)
                with self._lock:
                    is_cut = sent > self._after and self.done < self.cuts
                    self.done += is_cut
                if is_cut:
                    client.sendall(content[: max(0, len(content) - (sent - self._after))])
                    if self._hangs:
                        time.sleep(3)
                    # Closing alone sends nothing, as long as the other thread waits for a request.
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(content)

    def _copy_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while content := client.recv(1 << 16):
                server.sendall(content)


@contextmanager
def cut_connections(target: tuple[str, int], *, cuts: int, after: int, hangs: bool = False) -> Iterator[CuttingProxy]:
    """Yield a proxy before a server."""
    proxy = CuttingProxy(target, cuts=cuts, after=after, hangs=hangs)
    try:
        yield proxy
    finally:
        proxy.close()
