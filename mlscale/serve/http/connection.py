"""A client's connection: llhttp parses the requests, responses are sent in the order of the requests.

`Connections.close_overdue` closes clients that send or read too slowly; long responses are sent piece by piece. A
connection holds one incomplete body, 64 requests, and as many more as fit into 16 KiB; it continues to read when they
are answered and the client has read the responses.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import httptools

from mlscale.serve.http.exchange import (
    COMPACT,
    Connections,
    Exchange,
    Head,
    build_memory_refusal,
    build_size_refusal,
    convert_to_origin_form,
)
from mlscale.serve.http.request_error import Refused
from mlscale.serve.http.sockets import count_unread_bytes, count_unsent_bytes

_MAX_HEAD_BYTES = 32 << 10
_MAX_PIPELINED, _AT_ONCE = 64, 16
"""Unanswered requests of one connection; requests that are handled before other connections have their turn."""
_PIECE_BYTES = 16 << 10
_SENT_BYTES, _SENT_AT_ONCE = 128 << 10, 4
"""Bytes of a response in a piece, and pieces before other connections have their turn: a whole response would be
copied, or encrypted, in one blocking step."""
_SLOWEST_BYTES_S = 4 << 10
"""Bytes that a client must send or read in a second where it takes longer than `receive_s`."""
_SLICE_S, _LINGER_S, _SETTLE_S = 0.002, 2.0, 0.1
_NEVER = float("inf")
_HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
_ONCE = frozenset(
    {b"host", b"content-type", b"authorization", b"x-api-key", b"origin", b"inference-header-content-length"}
)
"""Headers that decide what a request may do: of two with one name, a proxy might read another one than this server."""


class HttpConnection(asyncio.Protocol):
    """The connection of one client."""

    def __init__(self, shared: Connections) -> None:
        self.shared, self.deadline = shared, _NEVER
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

    # Callbacks of asyncio

    def register_peer(self, peer: object, abort: Callable[[], object]) -> None:
        """Count as a connection from `peer`; `abort` closes it until `connection_made`, while TLS is negotiated."""
        self._entered, self._abort = True, abort
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

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        self._reset_request()
        self._receiving, self._since, self._moved = True, time.monotonic(), self._received

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))

        if self._whole_head:  # a trailer, which comes after all decisions
            return
        name = name.lower()
        if name in _ONCE and name in self._headers:
            self._refuse_request(Refused(f"there are two headers '{name.decode()}'"))
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._whole_head = True
        if self._deaf or self._is_upgrade():
            return
        host = self._headers.get(b"host", b"" if self._parser.get_http_version() == "1.0" else None)
        self._head = Head(self._parser.get_method(), convert_to_origin_form(self._target, self._headers), self._headers)
        stated = self._headers.get(b"content-length", b"0")
        coding = self._headers.get(b"transfer-encoding", b"chunked").strip().lower()
        try:
            if host is None or not _HOST.fullmatch(host):  # RFC 9112, 3.2
                raise Refused("the header 'Host' is not a host's name" if host else "the header 'Host' is missing")
            if coding != b"chunked":  # its body would be misread as the next request
                raise Refused("the transfer encoding is not 'chunked'; compress by Content-Encoding", 501)
            # Before the body arrives: a request that is not allowed costs no memory.
            self._limit = self.shared.screen(self._head, self._health_only)
            # At most 20 digits: `int` of a long text takes quadratic time.
            if not stated.isdigit() or int(stated[:20]) > self._limit:
                raise build_size_refusal(self._limit)
            if self.shared.held_bytes + int(stated) > self.shared.limits.memory_bytes:
                raise build_memory_refusal()
        except Refused as refused:
            self._refuse_request(refused)
            return
        # Only where no response waits: an interim response must not come before an earlier one.
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and not self._waiting and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        # Bytes of a body are not overhead, which `_parse_piece` limits.
        self._overhead -= len(body)
        if self._deaf:
            return
        try:
            if len(self._body) + len(body) > self._limit:
                raise build_size_refusal(self._limit)
            self.count_memory(len(body))
            self._received += len(body)
        except Refused as refused:
            self._refuse_request(refused)
            return
        if not self._body:
            self._body = body
        elif isinstance(self._body, bytearray):  # grows in place: joining 64 MB at the end would stop all others
            self._body += body
        else:
            self._body = bytearray(self._body + body)

    def on_message_complete(self) -> None:
        if self._deaf or self._is_upgrade():
            return
        keep = bool(self._parser.should_keep_alive()) and not self._health_only and self._head.method != b"CONNECT"
        old = self._parser.get_http_version() == "1.0"
        exchange = Exchange(self, self._head, self._body, keep=keep, old=old)
        self._receiving, self._body = False, b""
        self._waiting.append(exchange)
        # After this request the connection closes: what follows is not a request.
        self._deaf = not keep
        if self._unhandled or self._handled >= _AT_ONCE:
            self._unhandled.append(exchange)
        else:
            self._handled += 1
            self.shared.handle(exchange)

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

    def abort(self) -> None:
        """Close at once, without waiting for responses."""
        self._abort()

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

    def _reset_request(self) -> None:
        self._head, self._target, self._headers, self._body = Head(b"", b"", {}), b"", {}, b""
        self._head_bytes = self._overhead = self._limit = 0
        self._whole_head = False

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
        while self._unfed and not self._deaf and len(self._waiting) < _MAX_PIPELINED and self._can_handle():
            self._parse_piece(self._unfed[:_PIECE_BYTES])
            if time.perf_counter() > end:
                break
        if self._deaf:
            self._unfed = b""
        self._feeding = False
        if self._ended and not self._waiting and not self._unfed:
            self._close_transport()
            return
        if not self._is_blocked() and (self._unhandled or (self._unfed and len(self._waiting) < _MAX_PIPELINED)):
            self._schedule_processing()
        self._update_reading()
        self._set_deadline()

    def _can_handle(self) -> bool:
        return self._handled < _AT_ONCE and not self._is_blocked()

    def _is_blocked(self) -> bool:
        """Return whether the client has responses to read."""
        return self._blocked or bool(self._outgoing)

    def _count_progress(self) -> int:
        """Return the bytes of bodies that arrived; while the client has to read, of responses that reached it."""
        if not self._blocked or self._transport is None:
            return self._received
        # The system's send buffer counts, too: it takes megabytes before the client has read a byte.
        return (
            self._given - self._queued - self._transport.get_write_buffer_size() - count_unsent_bytes(self._transport)
        )

    def _schedule_processing(self) -> None:
        """Continue when other connections have had their turn."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._resume_processing)

    def _resume_processing(self) -> None:
        self._due = False
        self._process_received()

    def _parse_piece(self, piece: bytes) -> None:
        self._unfed = self._unfed[len(piece) :]
        self._overhead += len(piece)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._deaf:
                self._ignore_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_request(Refused("not an HTTP/1.1 request"))
        # A header, trailer or chunk extension without an end is not seen by the callbacks.
        if self._receiving and self._overhead > _MAX_HEAD_BYTES + _PIECE_BYTES + 16 * len(self._body):
            self._refuse_request(_build_head_refusal())

    def _is_upgrade(self) -> bool:
        """Return whether llhttp treats this request as an upgrade, and its body as another protocol."""
        # llhttp treats CONNECT as an upgrade, too, but it is refused by its target like other requests.
        return bool(self._parser.should_upgrade()) and self._parser.get_method() != b"CONNECT"

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Stay with HTTP/1.1 where a client offers an upgrade (h2c, websocket): parse its request again without the
        offer, followed by its body."""
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        # llhttp stops at an upgrade; only a new parser reads on. `_target` and `_headers` are complete here.
        self._parser, self._receiving = httptools.HttpRequestParser(self), False
        lines = [b"%b %b HTTP/%b" % (method, self._target, version)]
        lines += [b"%b: %b" % item for item in self._headers.items() if item[0] != b"upgrade"]
        self._unfed = b"\r\n".join(lines) + b"\r\n\r\n" + rest + self._unfed

    def _has_all(self) -> bool:
        """Return whether no part of another request has arrived, in the system's buffers neither."""
        if self._waiting or self._receiving or self._unfed or self._unhandled:
            return False
        # What is in the system's buffer was sent before the close, so it is answered, too.
        return self._transport is None or not count_unread_bytes(self._transport)

    def _wait_until(self, seconds: float) -> None:
        self._since = time.monotonic()
        self.deadline = self._since + seconds

    def _set_deadline(self) -> None:
        """Set the deadline of the client; none while the client waits for the server."""
        limits = self.shared.limits
        if self._is_blocked() or self._transport is None:
            return
        if self._receiving and not self._paused:
            self.deadline = self._since + (limits.receive_s if self._whole_head else limits.head_s)
        elif self._waiting or self._unfed:
            self._wait_until(_NEVER)

    def _start_idle_time(self) -> None:
        """Start the idle time if everything was answered."""
        if not self._waiting and not self._is_blocked():
            self._wait_until(self.shared.limits.idle_s)

    def _count_head(self, size: int) -> None:
        # 4 bytes for the separators of a header line, `: ` and CR LF.
        self._head_bytes += size + 4
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse_request(_build_head_refusal())

    def _refuse_request(self, refused: Refused) -> None:
        """Refuse a request that was not read to its end, after the responses before it, and close."""
        if self._deaf:
            return
        self._deaf = self._refused = True
        # A request without its body: nothing refers to the bytes any more, so their memory is free.
        self.count_memory(-len(self._body), refuse=False)
        self._body = b""
        exchange = Exchange(self, self._head._replace(headers={}), b"", keep=False)
        self._waiting.append(exchange)
        self.shared.refused(refused.status)
        exchange.send_response(refused.status, COMPACT({"error": refused.message}).encode(), headers=refused.headers)

    def _update_reading(self) -> None:
        """Pause reading while the client does not read, or has sent too many requests at once; resume it otherwise."""
        if self._transport is None or self._transport.is_closing():
            return
        pause = self._is_blocked() or bool(self._unfed or self._unhandled) or len(self._waiting) >= _MAX_PIPELINED
        if pause != self._paused:
            self._paused = pause
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def _send_outputs(self, outputs: list[bytes]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            size = sum(map(len, outputs))
            self._given += size
            if size <= _SENT_BYTES and not self._outgoing:
                # To join is to copy, which only pays for small responses.
                whole = size <= _PIECE_BYTES
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


def _build_head_refusal() -> Refused:
    return Refused(f"the head of the request is over {_MAX_HEAD_BYTES} bytes", 431)
