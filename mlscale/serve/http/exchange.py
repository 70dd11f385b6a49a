"""HTTP/1.1 as the rest of the server sees it: exchanges, and the state that all connections share."""

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

try:
    import orjson as orjson
except ImportError:  # a platform without its wheel: `json` gives the same in ten times the time
    orjson = None  # type: ignore[assignment]

JSON, TEXT, BINARY, HTML = b"application/json", b"text/plain; charset=utf-8", b"application/octet-stream", b"text/html"
# A client may refuse an encoding by a quality of zero: `gzip;q=0` (RFC 9110, 12.4.2).
_REFUSED = re.compile(rb";\s*q=0(\.0*)?\s*$")
_ABSOLUTE = re.compile(rb"https?://(?:[^/?#@]*@)?([^/?#@]*)", re.IGNORECASE)
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
COMPRESSED_FROM, COMPRESSED_TO = 1024, 64 << 10
"""Bytes of a response from which compression pays, and up to which it is done in the event loop: a millisecond."""
_PIECE_BYTES, _UNPACKED_BYTES = 64 << 10, 1 << 20
"""Bytes of a body that are decompressed at once, and the most bytes that one such step may return."""


def create_encoder(*, allow_nan: bool) -> Callable[[object], bytes]:
    """Return a function that gives a document as compact JSON in UTF-8, letters as they are.

    Args:
        allow_nan: write NaN and infinities, which JSON lacks, as Python does; otherwise they raise a ValueError.
    """
    encode, encode_ascii = (
        json.JSONEncoder(separators=(",", ":"), allow_nan=allow_nan, ensure_ascii=is_ascii).encode
        for is_ascii in (False, True)
    )

    def encode_document(document: object) -> bytes:
        try:
            # orjson writes NaN as null and refuses halves of surrogate pairs: those are left to `json`.
            if orjson is not None and b"null" not in (content := orjson.dumps(document)):
                return content
        except TypeError:
            pass
        text = encode(document)
        try:
            return text.encode()
        except UnicodeEncodeError:
            # Half of a surrogate pair, as the name of a class may hold, has a form in JSON and none in UTF-8.
            return encode_ascii(document).encode()

    return encode_document


encode_document = create_encoder(allow_nan=True)


@dataclass
class ConnectionLimits:
    """The limits of connections.

    Attributes:
        body_bytes: of one request, also when it is decompressed.
        memory_bytes: of all requests that are received or answered, and of responses that are not sent yet.
        connections: at once, without those reserved for health and metrics.
        per_address: connections of one client address; None: no limit.
        head_s: seconds from a request's first byte to the end of its head; as long may a new connection be silent.
        receive_s: seconds from a request's first byte to its last, and to read a response; extended while at least
            4 KiB are transferred in a second.
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


class ConnectionInterface(Closable, Protocol):
    """The interface of a client's connection; `http.connection` implements it."""

    deadline: float
    peer: str

    def flush_responses(self, exchange: Exchange) -> None:
        """Send the responses whose turn has come."""

    def count_memory(self, more: int) -> None:
        """Count memory that the request takes in addition to the bytes that arrived."""

    def count_unsent(self) -> None:
        """Count the bytes of responses that the client has not read."""

    def time_out(self) -> None:
        """Close the connection, since its deadline has passed."""

    def close_if_idle(self) -> None:
        """Close the connection unless one of its requests is not answered yet."""


Screen = Callable[[Head, bool], int]
"""Return the most bytes that the body may have, before it is read, or raise Refused; the second argument is True if the
connection is for health and metrics only."""


@dataclass(eq=False)
class Connections:
    """The state that all connections of a server share.

    Attributes:
        limits: their limits.
        screen: called with each head.
        handle: called with each complete request; answers it, now or later.
        refuse: called with each request that is refused before it is complete; answers it.
        admission: limits the number of connections.
        all: the open ones.
        held_bytes: bytes of requests and responses in memory.
        draining: True once connections answer what was sent, and close.
    """

    limits: ConnectionLimits
    screen: Screen
    handle: Callable[[Exchange], None]
    refuse: Callable[[Exchange, Refused], None]
    all: set[ConnectionInterface] = field(default_factory=set)
    held_bytes: int = 0
    draining: bool = False

    def __post_init__(self) -> None:
        self.admission = Admission(self.limits.connections, self.limits.per_address)

    def close_overdue(self) -> None:
        """Close the connections whose deadline has passed, and count unsent responses; called each second."""
        now = time.monotonic()
        for connection in self.all:
            connection.count_unsent()
        # A list first: closing a connection changes the set.
        for connection in [candidate for candidate in self.all if candidate.deadline < now]:
            connection.time_out()

    def close_idle(self) -> None:
        """Close the connections without an unanswered request."""
        for connection in list(self.all):
            connection.close_if_idle()


class Exchange:
    """A request and its response.

    Attributes:
        method, target: as sent, such as b"POST" and b"/predict".
        headers: by lower-case name.
        body: as sent; see `decompress_body`.
        keep: True if the client wants the connection to stay open after the response.
        arrived: `time.perf_counter` at its last byte.
        route: its name in metrics; set by its handler.
        id: of its first sample; '' before there is one.
        began, compute_s: start (`time.perf_counter`) and seconds of its batch; set when it was computed.
    """

    # One object for each request: slots make it smaller and faster to create.
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
        "id",
        "keep",
        "method",
        "old",
        "route",
        "target",
    )

    def __init__(
        self, connection: ConnectionInterface, head: Head, body: bytes | bytearray, *, keep: bool, old: bool = False
    ) -> None:
        self.method, self.target, self.headers = head
        self.body, self.keep, self.old = body, keep, old
        self.arrived = time.perf_counter()
        self.route, self.id, self.answered = "other", "", False
        self.began = self.compute_s = 0.0
        self._connection = connection

    def send_response(self, status: int, body: bytes = b"", kind: bytes = JSON, headers: bytes = b"") -> None:
        """Send the response, after those before it; only the first call counts. The client may have gone meanwhile."""
        if self.answered:
            return
        if COMPRESSED_FROM <= len(body) <= COMPRESSED_TO and b"Content-Encoding:" not in headers:
            body, headers = compress_body(body, headers, self.headers)
        self._status = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b" % (
            status,
            _REASONS[status],
            kind,
            len(body),
            headers,
        )
        # HEAD has the headers of GET, its length too, without the body.
        self._answer = b"" if self.method == b"HEAD" else body
        self.answered = True
        self._connection.flush_responses(self)

    def format_response(self, *, last: bool) -> tuple[bytes, bytes]:
        """Return the response's head and body; `last`: the connection closes after it."""
        if last:
            return self._status + b"Connection: close\r\n\r\n", self._answer
        # HTTP/1.0 closes by default, so staying open must be stated.
        return self._status + (b"Connection: keep-alive\r\n\r\n" if self.old else b"\r\n"), self._answer

    @property
    def peer(self) -> str:
        """The address that sent the request; '' where it is not known."""
        return self._connection.peer

    @property
    def answer_bytes(self) -> int:
        """The bytes of the response's body."""
        return len(self._answer)

    def replace_body(self, body: bytes | bytearray) -> None:
        """Replace the body by its decompressed form, and count its memory.

        Raises:
            Refused: requests hold all the memory that they may (503).
        """
        self._connection.count_memory(len(body) - len(self.body))
        self.body = body


def convert_to_origin_form(target: bytes, headers: dict[bytes, bytes]) -> bytes:
    """Return the path of `http://host/path`, as clients of proxies send it; write its host to the headers."""
    match = None if target.startswith(b"/") else _ABSOLUTE.match(target)
    if match is None:
        return target
    # The host of an absolute target takes precedence over the header (RFC 9112, 3.2.2).
    headers[b"host"] = match[1]
    return target[match.end() :] or b"/"


def decompress_body(headers: Mapping[bytes, bytes], body: bytes | bytearray, limit: int) -> bytes | bytearray:
    """Return the body, decompressed if it is gzip or deflate.

    Raises:
        Refused: it has another encoding, is corrupt, or over `limit` bytes.
    """
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"identity":
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise Refused("the body is compressed, and not by gzip or deflate", 415, b"Accept-Encoding: gzip, deflate\r\n")
    # Plus 16: a gzip header around the deflate stream. HTTP's `deflate` is the zlib format (RFC 9110, 8.4.1.2).
    unpacker = zlib.decompressobj(31 if encoding == b"gzip" else 15)
    content = bytearray()  # grows in place: zlib would join all pieces at the end, and stop all others
    given = memoryview(body)
    try:
        for at in range(0, len(body), _PIECE_BYTES):
            piece: memoryview | bytes = given[at : at + _PIECE_BYTES]
            while piece:
                content += unpacker.decompress(piece, _UNPACKED_BYTES)
                # Checked after each step: a small body may unpack to gigabytes.
                if len(content) > limit:
                    raise build_size_refusal(limit)
                piece = unpacker.unconsumed_tail
                # Bytes that are left out would be samples without an answer.
                if unpacker.unused_data or (unpacker.eof and at + _PIECE_BYTES < len(body)):
                    raise Refused("the body has bytes after the end of its compressed stream: compress it as one")
    except zlib.error as error:
        raise Refused("the body is corrupt: it can't be decompressed") from error
    content += unpacker.flush()
    if len(content) > limit:
        raise build_size_refusal(limit)
    if not unpacker.eof:
        raise Refused("the body is corrupt: it can't be decompressed")
    return content


def build_size_refusal(limit: int) -> Refused:
    """Return the refusal of a body that is over `limit` bytes."""
    return Refused(f"the body is over {limit} bytes", 413)


def build_memory_refusal() -> Refused:
    """Return the refusal of a request for which there is no memory at this time."""
    return Refused("too many large requests at once", 503, b"Retry-After: 1\r\n")


def compress_body(body: bytes, headers: bytes, request_headers: Mapping[bytes, bytes]) -> tuple[bytes, bytes]:
    """Return a response's body and header lines, compressed if the client accepts gzip or deflate."""
    accepted = request_headers.get(b"accept-encoding", b"")
    names = [name.partition(b";")[0].strip().lower() for name in accepted.split(b",") if not _REFUSED.search(name)]
    name = next((name for name in (b"gzip", b"deflate") if name in names), None)
    if name is None:
        return body, headers
    # Level 1: most of the gain for the least time.
    packer = zlib.compressobj(1, zlib.DEFLATED, 31 if name == b"gzip" else 15)
    return packer.compress(body) + packer.flush(), headers + b"Content-Encoding: %b\r\n" % name
