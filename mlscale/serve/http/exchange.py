"""HTTP/1.1 as the rest of the server sees it: exchanges, and what all connections share."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple, Protocol

from mlscale.serve.http.admission import Admission, Closable
from mlscale.serve.http.request_error import Refused

JSON, TEXT, BINARY, HTML = b"application/json", b"text/plain; charset=utf-8", b"application/octet-stream", b"text/html"
COMPACT = json.JSONEncoder(separators=(",", ":")).encode
_REFUSED = re.compile(rb";\s*q=0(\.0*)?\s*$")
_ABSOLUTE = re.compile(rb"https?://(?:[^/?#@]*@)?([^/?#@]*)", re.IGNORECASE)
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
COMPRESSED_FROM, COMPRESSED_TO = 1024, 64 << 10
"""Bytes of an answer that are worth compressing, and that may be compressed in the event loop: a millisecond."""
_PIECE_BYTES, _UNPACKED_BYTES = 64 << 10, 1 << 20
"""Bytes of a body that are decompressed at once, and to so many at most."""


@dataclass
class Limits:
    """What connections may take.

    Attributes:
        body_bytes: of one request, also when it is decompressed.
        memory_bytes: of all requests that are received or answered, and of answers that are not sent yet.
        connections: at once, besides those reserved for health and metrics.
        per_address: connections of one client address; None: as many as there are.
        head_s: seconds from a request's first byte to the end of its head; as long may a new connection be silent.
        receive_s: seconds from a request's first byte to its last, and in which an answer must be read; longer while
            at least 4 KiB a second pass.
        idle_s: seconds between requests.
    """

    body_bytes: int = 64 << 20
    memory_bytes: int = 256 << 20
    connections: int = 1024
    per_address: int | None = 256
    head_s: float = 10.0
    receive_s: float = 30.0
    idle_s: float = 75.0


class Head(NamedTuple):
    """A request before its body has arrived.

    Attributes:
        method, target: as sent, such as b"POST" and b"/predict".
        headers: by lower-case name.
    """

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]


class Connection(Closable, Protocol):
    """A client's connection, as exchanges and the server's clock see it; `http.connection` is one."""

    deadline: float

    def flush(self, exchange: Exchange) -> None:
        """Send the answers whose turn has come."""

    def hold(self, more: int) -> None:
        """Count bytes that the request takes besides those that arrived."""

    def count_unsent(self) -> None:
        """Count the bytes of answers that the client has not read."""

    def time_out(self) -> None:
        """Close it: its deadline has passed."""

    def close_if_idle(self) -> None:
        """Close it unless a request of it is to be answered."""


Screen = Callable[[Head, bool], int]
"""Return how many bytes the body may have, before it is read, or raise Refused; the second argument: whether the
connection is for health and metrics alone."""


@dataclass(eq=False)
class Connections:
    """All connections of a server.

    Attributes:
        limits: what they may take.
        screen: called with each head.
        handle: called with each whole request; answers it, now or later.
        refused: called with the status of each request that was answered before it was whole.
        admission: who may connect.
        all: those that are open.
        held_bytes: of requests and answers in memory.
        draining: answer what was sent, and close.
    """

    limits: Limits
    screen: Screen
    handle: Callable[[Exchange], None]
    refused: Callable[[int], None]
    all: set[Connection] = field(default_factory=set)
    held_bytes: int = 0
    draining: bool = False

    def __post_init__(self) -> None:
        self.admission = Admission(self.limits.connections, self.limits.per_address)

    def sweep(self) -> None:
        """Close the connections whose time is over, and see which answers were sent; called each second."""
        now = time.monotonic()
        for connection in self.all:
            connection.count_unsent()
        for connection in [each for each in self.all if each.deadline < now]:
            connection.time_out()

    def close_idle(self) -> None:
        """Close connections that have sent no request which is not answered."""
        for connection in list(self.all):
            connection.close_if_idle()


class Exchange:
    """A request, and the way to answer it.

    Attributes:
        method, target: as sent, such as b"POST" and b"/predict".
        headers: by lower-case name.
        body: as sent; see `decompressed`.
        keep: whether the client wants the connection to stay open after the answer.
        arrived: `time.perf_counter` at its last byte.
        route: what metrics call it; set by who handles it.
        began, compute_s: when its batch began to be computed, and how long that took; set by who computes it.
    """

    __slots__ = (
        "_answer",
        "_connection",
        "_status",
        "answered",
        "arrived",
        "began",
        "body",
        "compute_s",
        "headers",
        "keep",
        "method",
        "old",
        "route",
        "target",
    )

    def __init__(
        self, connection: Connection, head: Head, body: bytes | bytearray, *, keep: bool, old: bool = False
    ) -> None:
        self.method, self.target, self.headers = head
        self.body, self.keep, self.old = body, keep, old
        self.arrived = time.perf_counter()
        self.route, self.answered = "other", False
        self.began = self.compute_s = 0.0
        self._connection = connection

    def answer(self, status: int, body: bytes = b"", kind: bytes = JSON, headers: bytes = b"") -> None:
        """Answer; the first answer counts, and goes out when those before it have. A client may have gone meanwhile."""
        if self.answered:
            return
        if COMPRESSED_FROM <= len(body) <= COMPRESSED_TO and b"Content-Encoding:" not in headers:
            body, headers = compressed(body, headers, self.headers)
        self._status = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b" % (
            status,
            _REASONS[status],
            kind,
            len(body),
            headers,
        )
        self._answer = b"" if self.method == b"HEAD" else body
        self.answered = True
        self._connection.flush(self)

    def output(self, *, last: bool) -> tuple[bytes, bytes]:
        """The answer's head and body. `last`: the connection closes after it."""
        if last:
            return self._status + b"Connection: close\r\n\r\n", self._answer
        return self._status + (b"Connection: keep-alive\r\n\r\n" if self.old else b"\r\n"), self._answer

    @property
    def answer_bytes(self) -> int:
        """Of the answer's body."""
        return len(self._answer)

    def hold(self, body: bytes | bytearray) -> None:
        """Keep `body` in place of what was sent: it is decompressed, and counts as what it is.

        Raises:
            Refused: there is no memory for it (503).
        """
        self._connection.hold(len(body) - len(self.body))
        self.body = body


def origin_form(target: bytes, headers: dict[bytes, bytes]) -> bytes:
    """The path in `http://host/path`, as clients of proxies send it; its host goes to the headers."""
    match = _ABSOLUTE.match(target)
    if match is None:
        return target
    headers[b"host"] = match[1]
    return target[match.end() :] or b"/"


def decompressed(headers: Mapping[bytes, bytes], body: bytes | bytearray, limit: int) -> bytes | bytearray:
    """The body, decompressed where it came as gzip or deflate.

    Raises:
        Refused: it is in another encoding, damaged, or over `limit` bytes.
    """
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"identity":
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise Refused("the body is compressed, and not by gzip or deflate", 415, b"Accept-Encoding: gzip, deflate\r\n")
    unpacker = zlib.decompressobj(31 if encoding == b"gzip" else 15)
    content = bytearray()  # grows in place: zlib would join all pieces at the end, and stop everybody
    given = memoryview(body)
    try:
        for at in range(0, len(body), _PIECE_BYTES):
            if unpacker.eof:
                break
            piece: memoryview | bytes = given[at : at + _PIECE_BYTES]
            while piece:
                content += unpacker.decompress(piece, _UNPACKED_BYTES)
                if len(content) > limit:
                    raise too_large(limit)
                piece = unpacker.unconsumed_tail
    except zlib.error as error:
        raise Refused("the body is damaged: it can't be decompressed") from error
    content += unpacker.flush()
    if len(content) > limit:
        raise too_large(limit)
    if not unpacker.eof:
        raise Refused("the body is damaged: it can't be decompressed")
    return content


def too_large(limit: int) -> Refused:
    """What is told of a body that is over `limit` bytes."""
    return Refused(f"the body is over {limit} bytes", 413)


def busy() -> Refused:
    """What is told where requests hold all the memory that they may."""
    return Refused("too many large requests at once", 503, b"Retry-After: 1\r\n")


def compressed(body: bytes, headers: bytes, asked: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """An answer's body and head as the client accepts them; as they are where it accepts neither gzip nor deflate."""
    accepted = asked.get(b"accept-encoding", b"")
    names = [name.partition(b";")[0].strip().lower() for name in accepted.split(b",") if not _REFUSED.search(name)]
    name = next((name for name in (b"gzip", b"deflate") if name in names), None)
    if name is None:
        return body, headers
    packer = zlib.compressobj(1, zlib.DEFLATED, 31 if name == b"gzip" else 15)
    return packer.compress(body) + packer.flush(), headers + b"Content-Encoding: %b\r\n" % name
