"""Accepts clients, with and without TLS, until told to stop; whoever has connected by then is still served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from functools import partial

from mlscale.serve.http.connection import Connection
from mlscale.serve.http.exchange import Connections

_BACKLOG, _AT_ONCE, _PAUSE_S = 1024, 64, 0.1


class Listener:
    """Makes a `Connection` of each client; for the thread of the event loop.

    asyncio's own servers count a TLS client when it has ended its handshake: those that never do are no connection to
    them, and hold a file each. Here each counts from the start.

    Args:
        listening: bound.
        shared: what connections share.
        context: for TLS; None without.
    """

    def __init__(self, listening: socket.socket, shared: Connections, context: ssl.SSLContext | None) -> None:
        self._listening, self._shared, self._context = listening, shared, context
        self._loop = asyncio.get_running_loop()
        self._negotiating: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._open()

    def close(self) -> None:
        """Accept those that have connected, and no others."""
        self._loop.remove_reader(self._listening)
        while self._accept_some():
            pass
        self._listening.close()

    def _open(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening, self._accept_some)

    def _accept_some(self) -> bool:
        """Whether there may be more."""
        for _ in range(_AT_ONCE):
            try:
                client, peer = self._listening.accept()
            except BlockingIOError:
                return False
            except OSError:  # gone again, or there are no files left
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_PAUSE_S, self._open)
                return False
            client.setblocking(False)
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self._shared)
            task = self._loop.create_task(self._serve(connection, client))
            self._negotiating.add(task)
            task.add_done_callback(partial(self._served, connection, client))
            connection.enter(peer, task.cancel)
        return True

    async def _serve(self, connection: Connection, client: socket.socket) -> None:
        seconds = None if self._context is None else self._shared.limits.head_s
        await self._loop.connect_accepted_socket(
            lambda: connection, client, ssl=self._context, ssl_handshake_timeout=seconds
        )

    def _served(self, connection: Connection, client: socket.socket, task: asyncio.Task[None]) -> None:
        """It speaks no TLS, was too slow, or gone before it had begun: nobody to tell."""
        self._negotiating.discard(task)
        if task.cancelled() or task.exception() is not None:
            client.close()
            connection.connection_lost(None)
