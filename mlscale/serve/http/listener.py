"""Accepts clients, with and without TLS, until it is closed; clients that have connected by then are still served."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from functools import partial

from mlscale.serve.http.connection import HttpConnection
from mlscale.serve.http.exchange import Connections

_BACKLOG, _AT_ONCE, _PAUSE_S = 1024, 64, 0.1


class Listener:
    """Creates a `HttpConnection` for each client; to be used in the thread of the event loop only.

    asyncio's own servers count a TLS client after its handshake: clients that never complete one are not counted, and
    hold a file each. Here each counts from the start.

    Args:
        listening: a bound socket.
        shared: the state that connections share.
        context: the TLS context; None: no TLS.
    """

    def __init__(self, listening: socket.socket, shared: Connections, context: ssl.SSLContext | None) -> None:
        self._listening, self._shared, self._context = listening, shared, context
        self._loop = asyncio.get_running_loop()
        self._negotiating: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._start_accepting()

    def close(self) -> None:
        """Accept the clients in the backlog, then stop listening."""
        self._loop.remove_reader(self._listening)
        while self._accept_some():
            pass
        self._listening.close()

    def _start_accepting(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening, self._accept_some)

    def _accept_some(self) -> bool:
        """Accept some clients; return whether there may be more."""
        # At most some at once, so that a flood of clients does not stop the requests of others.
        for _ in range(_AT_ONCE):
            try:
                client, peer = self._listening.accept()
            except BlockingIOError:
                return False
            except OSError:  # the client is gone, or no file descriptors are left
                # A listening socket without file descriptors stays readable: the loop would spin.
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_PAUSE_S, self._start_accepting)
                return False
            client.setblocking(False)
            with contextlib.suppress(OSError):
                # Without this a small response may wait for the client's delayed acknowledgement, 40 ms on Linux.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = HttpConnection(self._shared)
            task = self._loop.create_task(self._negotiate_connection(connection, client))
            self._negotiating.add(task)
            task.add_done_callback(partial(self._finish_negotiation, connection, client))
            # Before `connection_made`, which TLS calls after the handshake only: limits and deadline hold from here.
            connection.register_peer(peer, task.cancel)
        return True

    async def _negotiate_connection(self, connection: HttpConnection, client: socket.socket) -> None:
        seconds = None if self._context is None else self._shared.limits.head_s
        await self._loop.connect_accepted_socket(
            lambda: connection, client, ssl=self._context, ssl_handshake_timeout=seconds
        )

    def _finish_negotiation(self, connection: HttpConnection, client: socket.socket, task: asyncio.Task[None]) -> None:
        """Close a client whose TLS handshake failed, took too long, or was aborted."""
        self._negotiating.discard(task)
        if task.cancelled() or task.exception() is not None:
            client.close()
            connection.connection_lost(None)
