"""The state of a client's connection: what was received, waits and was sent, the memory it holds, its deadline."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from mlscale.serve.http.exchange import ConnectionInterface, Connections, Exchange, Head, build_memory_refusal
from mlscale.serve.http.sockets import count_unread_bytes, count_unsent_bytes

MAX_PIPELINED, AT_ONCE = 64, 16
"""Unanswered requests of one connection; requests that are handled before other connections have their turn."""
PIECE_BYTES = 16 << 10
"""Bytes that are parsed at once, and the size up to which responses are joined."""
NEVER = float("inf")


class ConnectionState(asyncio.Protocol, ConnectionInterface):
    """The state of the connection of one client, and what is counted of it."""

    def __init__(self, shared: Connections) -> None:
        self.shared, self.deadline, self.peer = shared, NEVER, ""
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._unhandled: deque[Exchange] = deque()
        self._transport: asyncio.Transport | None = None
        self._abort: Callable[[], object] = lambda: None
        self._entered = self._health_only = False
        # Flags: `_deaf`: ignore further input; `_ended`: the client has sent its end; `_blocked`: the transport's
        # buffer is full; `_paused`: reading is paused; `_feeding`: inside `_process_received`; `_due`: a call of
        # `_process_received` is scheduled.
        self._receiving = self._refused = self._deaf = self._ended = False
        self._blocked = self._paused = self._feeding = self._due = False
        self._held = self._unsent = self._handled = 0
        self._outgoing: deque[memoryview] = deque()
        # Counts of bytes: `_queued` in `_outgoing`, `_received` of bodies, `_given` of responses, `_moved`: progress at
        # the last deadline.
        self._queued = self._received = self._given = self._moved = 0
        self._lingers: bool | None = None
        self._unfed, self._since = b"", time.monotonic()
        self._head, self._target = Head(b"", b"", {}), b""
        self._headers: dict[bytes, bytes] = {}
        self._body: bytes | bytearray = b""
        self._head_bytes = self._overhead = self._limit = 0
        self._whole_head = False
        # Bytes of the open chunk that have arrived, None outside a chunk; and the end of the piece before.
        self._chunk_bytes: int | None = None
        self._before = b""

    def abort(self) -> None:
        """Close at once, without waiting for responses."""
        self._abort()

    def count_memory(self, size: int, *, refuse: bool = True) -> None:
        """Count `size` more bytes of memory.

        Raises:
            Refused: requests hold all the memory that they may (503).
        """
        if refuse and size > 0 and self.shared.held_bytes + size > self.shared.limits.memory_bytes:
            raise build_memory_refusal()
        if self._transport is None:  # closed: its memory was freed by `connection_lost`
            return
        self._held += size
        self.shared.held_bytes += size

    def count_unsent(self) -> None:
        """Count the memory of responses that the client has not read."""
        unsent = 0 if self._transport is None else self._transport.get_write_buffer_size() + self._queued
        if unsent != self._unsent:
            self.count_memory(unsent - self._unsent, refuse=False)
            self._unsent = unsent

    def _reset_request(self) -> None:
        self._head, self._target, self._headers, self._body = Head(b"", b"", {}), b"", {}, b""
        self._head_bytes = self._overhead = self._limit = 0
        self._whole_head, self._chunk_bytes, self._before = False, None, b""

    def _is_blocked(self) -> bool:
        """Return whether the client has responses to read."""
        return self._blocked or bool(self._outgoing)

    def _has_all(self) -> bool:
        """Return whether no part of another request has arrived, in the system's buffers neither."""
        if self._waiting or self._receiving or self._unfed or self._unhandled:
            return False
        # What is in the system's buffer was sent before the close, so it is answered, too.
        return self._transport is None or not count_unread_bytes(self._transport)

    def _wait_until(self, seconds: float) -> None:
        self._since = time.monotonic()
        self.deadline = self._since + seconds

    def _count_progress(self) -> int:
        """Return the bytes of bodies that arrived; while the client has to read, of responses that reached it."""
        if not self._blocked or self._transport is None:
            return self._received
        # The system's send buffer counts, too: it takes megabytes before the client has read a byte.
        return (
            self._given - self._queued - self._transport.get_write_buffer_size() - count_unsent_bytes(self._transport)
        )

    def _update_reading(self) -> None:
        """Pause reading while the client does not read, or has sent too many requests at once; resume it otherwise."""
        if self._transport is None or self._transport.is_closing():
            return
        pause = self._is_blocked() or bool(self._unfed or self._unhandled) or len(self._waiting) >= MAX_PIPELINED
        if pause != self._paused:
            self._paused = pause
            (self._transport.pause_reading if pause else self._transport.resume_reading)()
