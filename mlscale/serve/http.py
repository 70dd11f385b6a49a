"""HTTP/1.1 on a socket: parsing by llhttp, keep-alive, pipelining in order, limits on size and time.

A connection never holds more than one body and 64 answers; who sends or reads too slowly is cut off by `sweep`.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

import httptools

from mlscale.serve.refused import Refused

JSON, TEXT, BINARY, HTML = b"application/json", b"text/plain; charset=utf-8", b"application/octet-stream", b"text/html"
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_MAX_HEAD_BYTES = 32 << 10
_MAX_PIPELINED = 64
_LINGER_S = 2.0
_COMPRESSED_FROM = 1024
"""Bytes of an answer that are worth compressing."""


@dataclass
class Limits:
    """What connections may take.

    Attributes:
        body_bytes: of one request, also when it is unpacked.
        bodies_bytes: of all requests that are being received or answered.
        connections: at once.
        receive_s: seconds from a request's first byte to its last; as long may a client not read its answer.
        idle_s: seconds between requests.
    """

    body_bytes: int = 64 << 20
    bodies_bytes: int = 512 << 20
    connections: int = 1024
    receive_s: float = 30.0
    idle_s: float = 75.0


@dataclass(eq=False)
class Connections:
    """All connections of a server.

    Attributes:
        limits: what they may take.
        handle: called with each whole request; answers it, now or later.
        refused: called with the status of each request that was answered before it was whole.
        all: those that are open.
        bodies_bytes: of the requests in memory.
        draining: answer what was asked, and close.
    """

    limits: Limits
    handle: Callable[[Exchange], None]
    refused: Callable[[int], None]
    all: set[Connection] = field(default_factory=set)
    bodies_bytes: int = 0
    draining: bool = False

    def sweep(self) -> None:
        """Close the connections whose time is over; called each second."""
        now = time.monotonic()
        for connection in [each for each in self.all if each.deadline < now]:
            connection.time_out()

    def drain(self) -> None:
        """Close connections without a request now, the others after their answers."""
        self.draining = True
        for connection in list(self.all):
            connection.close_if_idle()


class Exchange:
    """A request, and the way to answer it.

    Attributes:
        method, target: as sent, such as b"POST" and b"/predict".
        headers: by lower-case name.
        body: as sent; see `body_of`.
        arrived: `time.perf_counter` at its last byte.
        route: what metrics call it; set by who handles it.
    """

    __slots__ = (
        "_connection",
        "_keep",
        "answered",
        "arrived",
        "body",
        "headers",
        "method",
        "output",
        "route",
        "target",
    )

    def __init__(
        self, connection: Connection, method: bytes, target: bytes, headers: dict[bytes, bytes], body: bytes, keep: bool
    ) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.arrived = time.perf_counter()
        self.route, self.answered = "other", False
        self.output = b""
        self._connection, self._keep = connection, keep

    def answer(self, status: int, body: bytes = b"", kind: bytes = JSON, headers: bytes = b"") -> None:
        """Answer; the first answer counts, and goes out when those before it have. A client may have gone meanwhile."""
        if self.answered:
            return
        keep = self._keep and not self._connection.shared.draining
        if len(body) >= _COMPRESSED_FROM and b"accept-encoding" in self.headers:
            body, headers = _compressed(body, headers, self.headers[b"accept-encoding"])
        self.output = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n%b" % (
            status,
            _REASONS[status],
            kind,
            len(body),
            headers,
            b"" if keep else b"Connection: close\r\n",
            b"" if self.method == b"HEAD" else body,
        )
        self.answered, self._keep = True, keep
        self._connection.flush()

    @property
    def last(self) -> bool:
        """Whether the connection closes after this answer."""
        return not self._keep


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, shared: Connections) -> None:
        self.shared, self.deadline = shared, float("inf")
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._transport: asyncio.Transport | None = None
        self._receiving = self._deaf = self._blocked = self._paused = False
        self._counted = 0
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
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # it may ask; the answer is in HTTP/1.1, and what follows is not read
            self._deaf = True
        except httptools.HttpParserError:
            self._refuse(400, b"this is no HTTP/1.1 request")
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


def body_of(exchange: Exchange, limit: int) -> bytes:
    """The body, decompressed where it came as gzip or deflate.

    Raises:
        Refused: it is in another encoding, damaged, or over `limit` bytes.
    """
    encoding = exchange.headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"identity":
        return exchange.body
    if encoding not in (b"gzip", b"deflate"):
        raise Refused("the body is compressed, and not by gzip or deflate", 415, b"Accept-Encoding: gzip, deflate\r\n")
    unpacker = zlib.decompressobj(31 if encoding == b"gzip" else 15)
    try:
        body = unpacker.decompress(exchange.body, limit + 1)
    except zlib.error as error:
        raise Refused("the body is damaged: it can't be decompressed") from error
    if len(body) > limit:
        raise Refused(f"the body is over {limit} bytes", 413)
    if not unpacker.eof:
        raise Refused("the body is damaged: it can't be decompressed")
    return body


def _compressed(body: bytes, headers: bytes, accepted: bytes) -> tuple[bytes, bytes]:
    names = [name.partition(b";")[0].strip().lower() for name in accepted.split(b",") if b"q=0" not in name]
    name = next((name for name in (b"gzip", b"deflate") if name in names), None)
    if name is None:
        return body, headers
    packer = zlib.compressobj(1, zlib.DEFLATED, 31 if name == b"gzip" else 15)
    return packer.compress(body) + packer.flush(), headers + b"Content-Encoding: %b\r\n" % name
