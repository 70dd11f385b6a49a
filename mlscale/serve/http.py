"""HTTP/1.1 as the rest of the server sees it: exchanges, and what all connections share."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

from mlscale.serve.refused import Refused

if TYPE_CHECKING:
    from mlscale.serve.connection import Connection

JSON, TEXT, BINARY, HTML = b"application/json", b"text/plain; charset=utf-8", b"application/octet-stream", b"text/html"
COMPACT = json.JSONEncoder(separators=(",", ":")).encode
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
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
