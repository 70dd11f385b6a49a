"""A client's connection: llhttp parses what comes, answers go out in the order of the requests.

Who sends or reads too slowly is cut off by `Connections.sweep`. A connection holds one body that is not whole yet, 64
requests, and as many more as fit into 16 KiB.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, cast

import httptools

from mlscale.serve.http import Connections, Exchange

_MAX_HEAD_BYTES = 32 << 10
_MAX_PIPELINED = 64
_PIECE_BYTES = 16 << 10
_LINGER_S = 2.0


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, shared: Connections) -> None:
        self.shared, self.deadline = shared, float("inf")
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._transport: asyncio.Transport | None = None
        self._receiving = self._deaf = self._blocked = self._paused = self._feeding = False
        self._counted, self._unfed = 0, b""
        self._body: list[bytes] = []
        self._start()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.shared.all.add(self)
        self.deadline = time.monotonic() + self.shared.limits.receive_s
        if len(self.shared.all) > self.shared.limits.connections:
            self._refuse(503, b"too many connections")

    def data_received(self, data: bytes) -> None:
        self._unfed += data
        self._feed()

    def _feed(self) -> None:
        """Parse what came, piece by piece: not on, while there are as many requests as may wait."""
        if self._feeding:  # the parser calls, who answers at once calls back
            return
        self._feeding = True
        while self._unfed and not self._deaf and len(self._waiting) < _MAX_PIPELINED:
            piece, self._unfed = self._unfed[:_PIECE_BYTES], self._unfed[_PIECE_BYTES:]
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserUpgrade:  # it may ask; the answer is in HTTP/1.1, and what follows is not read
                self._deaf = True
            except httptools.HttpParserError:
                self._refuse(400, b"this is no HTTP/1.1 request")
        self._feeding = False
        if self._deaf:
            self._unfed = b""
        if self._receiving and self.deadline == float("inf"):
            self.deadline = time.monotonic() + self.shared.limits.receive_s

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.all.discard(self)
        self._uncount(self._counted)
        for exchange in self._waiting:
            self._uncount(len(exchange.body))
        self._waiting.clear()
        self._counted, self._transport, self._deaf = 0, None, True

    def pause_writing(self) -> None:
        self._blocked = True
        self.deadline = time.monotonic() + self.shared.limits.receive_s
        self._pace()

    def resume_writing(self) -> None:
        self._blocked = False
        self._rest()
        self._pace()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._start()
        self._receiving = True
        self._busy()  # until this data was fed: then it has receive_s

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        stated = self._headers.get(b"content-length", b"0")
        if not stated.isdigit() or int(stated[:20]) > self.shared.limits.body_bytes:
            self._refuse(413, b"the body is over %d bytes" % self.shared.limits.body_bytes)
        elif self.shared.bodies_bytes + int(stated) > self.shared.limits.bodies_bytes:
            self._refuse(503, b"too many large requests at once", b"Retry-After: 1\r\n")
        elif self._headers.get(b"expect", b"").lower() == b"100-continue" and not self._waiting and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._deaf:
            return
        self._counted += len(body)
        self.shared.bodies_bytes += len(body)
        self._body.append(body)
        if self._counted > self.shared.limits.body_bytes:
            self._refuse(413, b"the body is over %d bytes" % self.shared.limits.body_bytes)
        elif self.shared.bodies_bytes > self.shared.limits.bodies_bytes:
            self._refuse(503, b"too many large requests at once", b"Retry-After: 1\r\n")

    def on_message_complete(self) -> None:
        if self._deaf:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        keep = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        exchange = Exchange(self, self._parser.get_method(), self._target, self._headers, body, keep)
        self._counted, self._body = 0, []
        self._receiving = False
        self._busy()
        self._waiting.append(exchange)
        self._deaf = not keep
        self._pace()
        self.shared.handle(exchange)

    # What it does

    def flush(self) -> None:
        """Send the answers whose turn it is."""
        outputs = []
        while self._waiting and self._waiting[0].answered:
            exchange = self._waiting.popleft()
            self._uncount(len(exchange.body))
            outputs.append(exchange.output)
            if exchange.last:
                self._send(outputs)
                self._close(linger=not exchange.method)
                return
        if outputs:
            self._send(outputs)
            self._rest()
            self._pace()
            self._feed()

    def time_out(self) -> None:
        """Its time is over: tell a client that has begun a request, and close."""
        if self._receiving and not self._waiting and not self._blocked:
            self._refuse(408, b"the request did not arrive in time")
        elif self._transport is not None:
            self._transport.abort()

    def abort(self) -> None:
        """Close, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()

    def close_if_idle(self) -> None:
        """Close unless there is a request to answer, or to receive."""
        if not self._waiting and not self._receiving:
            self._close()

    def _start(self) -> None:
        self._target, self._headers, self._head_bytes, self._body = b"", dict[bytes, bytes](), 0, []

    def _rest(self) -> None:
        if not self._waiting and not self._receiving and not self._blocked:
            self.deadline = time.monotonic() + self.shared.limits.idle_s

    def _busy(self) -> None:
        """No limit while it is the server that takes its time."""
        if not self._blocked:
            self.deadline = float("inf")

    def _count_head(self, size: int) -> None:
        self._head_bytes += size + 4
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(431, b"the head of the request is over %d bytes" % _MAX_HEAD_BYTES)

    def _refuse(self, status: int, why: bytes, headers: bytes = b"") -> None:
        """Answer a request that is not read to its end, after those before it, and close."""
        if self._deaf:
            return
        self._deaf, self._receiving = True, False
        self._uncount(self._counted)
        self._counted, self._body = 0, []
        exchange = Exchange(self, b"", b"", {}, b"", keep=False)
        self._waiting.append(exchange)
        self.shared.refused(status)
        exchange.answer(status, b'{"error":"%b"}' % why, headers=headers)

    def _uncount(self, size: int) -> None:
        self.shared.bodies_bytes -= size

    def _pace(self) -> None:
        """Read no more while a client does not read, or has asked too much at once."""
        if self._transport is None or self._transport.is_closing():
            return
        pause = self._blocked or len(self._waiting) >= _MAX_PIPELINED
        if pause != self._paused:
            self._paused = pause
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def _send(self, outputs: list[bytes]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(outputs[0] if len(outputs) == 1 else b"".join(outputs))

    def _close(self, *, linger: bool = False) -> None:
        """Close; where the client still sends, only once it has had time to read the answer: a reset would eat it."""
        self._deaf = True
        if self._transport is None or self._transport.is_closing():
            return
        if linger and self._transport.can_write_eof():
            self._transport.write_eof()
            self.deadline = time.monotonic() + _LINGER_S
        else:
            self._transport.close()
