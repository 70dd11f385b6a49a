"""A client's connection: llhttp parses the requests, responses are sent in the order of the requests.

`Connections.close_overdue` closes clients that send or read too slowly; long responses are sent piece by piece. A
connection holds one incomplete body, 64 requests, and as many more as fit into 16 KiB; it continues to read when they
are answered and the client has read the responses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

from mlscale.serve.http.connection_state import AT_ONCE, MAX_PIPELINED, NEVER, PIECE_BYTES
from mlscale.serve.http.exchange import Exchange
from mlscale.serve.http.request_error import Refused
from mlscale.serve.http.request_parser import RequestParser

_SENT_BYTES, _SENT_AT_ONCE = 128 << 10, 4
"""Bytes of a response in a piece, and pieces before other connections have their turn: a whole response would be
copied, or encrypted, in one blocking step."""
_SLOWEST_BYTES_S = 4 << 10
"""Bytes that a client must send or read in a second where it takes longer than `receive_s`."""
_SLICE_S, _LINGER_S, _SETTLE_S = 0.002, 2.0, 0.1


class HttpConnection(RequestParser):
    """The connection of one client."""

    # Callbacks of asyncio

    def register_peer(self, peer: object, abort: Callable[[], object]) -> None:
        """Count as a connection from `peer`; `abort` closes it until `connection_made`, while TLS is negotiated."""
        self._entered, self._abort = True, abort
        self.peer = str(peer[0]) if isinstance(peer, tuple) and peer else ""
        self.shared.all.add(self)
        self._health_only = not self.shared.admission.accept_connection(self, peer)
        self._wait_until(self.shared.limits.head_s)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._entered:
            self.register_peer(transport.get_extra_info("peername"), self._transport.abort)
        self._abort = self._transport.abort

    def data_received(self, data: bytes) -> None:
        if not self._deaf:
            self._unfed += data
            self._process_received()

    def eof_received(self) -> bool:
        """Return whether to keep the connection open for responses: the client sends no more, but may still read."""
        self._ended = True
        secure = self._transport is None or self._transport.get_extra_info("sslcontext") is not None
        return bool(self._waiting or self._unfed) and not secure  # TLS has no half-closed connections

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.all.discard(self)
        self.shared.admission.release_connection(self)
        # The memory of this connection, of requests and responses that will not be sent, is free again.
        self.count_memory(-self._held)
        self._waiting.clear()
        self._unhandled.clear()
        self._outgoing.clear()
        self._transport, self._deaf, self._unfed, self._abort = None, True, b"", lambda: None

    def pause_writing(self) -> None:
        self._blocked = True
        self._wait_until(self.shared.limits.receive_s)
        self._moved = self._count_progress()
        self._update_reading()

    def resume_writing(self) -> None:
        self._blocked = False
        self._moved = self._count_progress()
        self.count_unsent()
        self._continue_sending()

    # Responses, limits and flow control

    def flush_responses(self, answered: Exchange) -> None:
        """Send the responses whose turn it is; `answered` is the exchange that was answered now."""
        if self._transport is None:
            return
        held = answered.answer_bytes  # counted at once: a response that waits for its turn is memory, too
        outputs: list[bytes] = []
        last = False
        while self._waiting and self._waiting[0].answered and not last:
            exchange = self._waiting.popleft()
            # Requests that were sent before the server began to drain are answered: only the last one closes.
            last = not exchange.keep or (self.shared.draining and self._has_all())
            outputs += exchange.format_response(last=last)
            # The request's memory is freed; the response's is counted by `count_unsent` from here.
            held -= len(exchange.body) + exchange.answer_bytes
        self.count_memory(held, refuse=False)
        if not outputs:
            return
        self._send_outputs(outputs)
        if last:
            self._close_transport(linger=self._refused)
            return
        self._start_idle_time()
        # Called from within the parser's callbacks, too: `_process_received` returns at once there.
        if self._receiving or self._unfed or self._unhandled or self._ended or self._paused:
            self._process_received()

    def time_out(self) -> None:
        """Close a connection whose deadline has passed, with status 408 if a request has begun; extend the deadline
        where enough bytes were transferred."""
        seconds = self.shared.limits.receive_s
        # A large body on a slow line may take its time, at a minimum rate.
        moves = self._blocked or (self._receiving and self._whole_head)
        if moves and self._count_progress() - self._moved >= seconds * _SLOWEST_BYTES_S:
            self._wait_until(seconds)
            self._moved = self._count_progress()
        elif self._receiving and not self._blocked:
            self._refuse_request(Refused("the request did not arrive in time", 408))
        else:
            self.abort()

    def close_if_idle(self) -> None:
        """Close unless a request is received or answered, or was just sent perhaps."""
        if (
            self._transport is not None
            and not self._waiting
            and self._has_all()
            # A request may be on its way when a drain begins: closing now would reset the connection.
            and time.monotonic() - self._since > _SETTLE_S
        ):
            self._close_transport()

    def _process_received(self) -> None:
        """Parse and handle received bytes piece by piece, while fewer requests wait than may and responses are read."""
        # A handler that responds at once, inside the parser's callback, calls `flush_responses` and so this method
        # again.
        if self._feeding or self._transport is None:
            return
        self._feeding, self._handled = True, 0
        end = time.perf_counter() + _SLICE_S
        while self._unhandled and self._can_handle():
            self._handled += 1
            self.shared.handle(self._unhandled.popleft())
        while self._unfed and not self._deaf and len(self._waiting) < MAX_PIPELINED and self._can_handle():
            self._parse_request_piece(self._unfed[:PIECE_BYTES])
            if time.perf_counter() > end:
                break
        if self._deaf:
            self._unfed = b""
        self._feeding = False
        if self._ended and not self._waiting and not self._unfed:
            self._close_transport()
            return
        if not self._is_blocked() and (self._unhandled or (self._unfed and len(self._waiting) < MAX_PIPELINED)):
            self._schedule_processing()
        self._update_reading()
        self._set_deadline()

    def _can_handle(self) -> bool:
        return self._handled < AT_ONCE and not self._is_blocked()

    def _schedule_processing(self) -> None:
        """Continue when other connections have had their turn."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._resume_processing)

    def _resume_processing(self) -> None:
        self._due = False
        self._process_received()

    def _set_deadline(self) -> None:
        """Set the deadline of the client; none while the client waits for the server."""
        limits = self.shared.limits
        if self._is_blocked() or self._transport is None:
            return
        if self._receiving and not self._paused:
            self.deadline = self._since + (limits.receive_s if self._whole_head else limits.head_s)
        elif self._waiting or self._unfed:
            self._wait_until(NEVER)

    def _start_idle_time(self) -> None:
        """Start the idle time if everything was answered."""
        if not self._waiting and not self._is_blocked():
            self._wait_until(self.shared.limits.idle_s)

    def _send_outputs(self, outputs: list[bytes]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            size = sum(map(len, outputs))
            self._given += size
            if size <= _SENT_BYTES and not self._outgoing:
                # To join is to copy, which only pays for small responses.
                whole = size <= PIECE_BYTES
                self._transport.write(b"".join(outputs)) if whole else self._transport.writelines(outputs)
            else:
                self._outgoing.extend(memoryview(output) for output in outputs if output)
                self._queued += size
                self._send_pieces()
            self.count_unsent()

    def _send_pieces(self) -> None:
        """Write pieces of responses while the client reads; continue when other connections have had their turn."""
        for _ in range(_SENT_AT_ONCE):
            if not self._outgoing or self._blocked or self._transport is None:
                return
            piece = self._outgoing.popleft()
            if len(piece) > _SENT_BYTES:
                self._outgoing.appendleft(piece[_SENT_BYTES:])
                piece = piece[:_SENT_BYTES]
            self._queued -= len(piece)
            self._transport.write(piece)
        if self._outgoing and not self._blocked:
            asyncio.get_running_loop().call_soon(self._continue_sending)

    def _continue_sending(self) -> None:
        """Continue with the rest of the responses; after them, with closing or the next requests."""
        self._send_pieces()
        if self._is_blocked():
            return
        if self._lingers is not None:
            self._close_transport(linger=self._lingers)
            return
        self._start_idle_time()
        self._process_received()

    def _close_transport(self, *, linger: bool = False) -> None:
        """Close; `linger`: give a client that still sends time to read the response first."""
        self._deaf = True
        if self._transport is None or self._transport.is_closing():
            return
        if self._outgoing:
            self._lingers = linger
            return
        if not linger:
            self._transport.close()
            return
        # A socket that is closed with unread input sends a reset, which can discard the response at the client. So only
        # this direction is closed, input is read and dropped, and the deadline ends it.
        self._receiving, self._unfed = False, b""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._update_reading()
        self._wait_until(_LINGER_S)
