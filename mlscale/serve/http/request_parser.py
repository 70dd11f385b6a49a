"""Parse requests: llhttp calls back for each part, what is not allowed is refused before its body arrives."""

from __future__ import annotations

import re
import time

import httptools

from mlscale.serve.http.connection_state import AT_ONCE, PIECE_BYTES, ConnectionState
from mlscale.serve.http.exchange import (
    Exchange,
    Head,
    build_memory_refusal,
    build_size_refusal,
    convert_to_origin_form,
)
from mlscale.serve.http.request_error import Refused
from mlscale.serve.http.request_log import TRACED

_MAX_HEAD_BYTES = 32 << 10
_CHUNK_LINE_BYTES = 1 << 10  # of a chunk's first line that is split over pieces: 16 digits, and room for an extension
_HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
_ONCE = frozenset(
    {b"host", b"content-type", b"authorization", b"x-api-key", b"origin", b"inference-header-content-length"}
)
"""Headers that decide what a request may do: of two with one name, a proxy might read another one than this server."""


class RequestParser(ConnectionState):
    """The callbacks of llhttp for one connection: they collect a request and hand it over, or refuse it."""

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
        # Bytes of a body are not overhead, which `_parse_request_piece` limits.
        self._overhead -= len(body)
        self._chunk_bytes = None if self._chunk_bytes is None else self._chunk_bytes + len(body)
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

    def on_chunk_header(self) -> None:
        self._chunk_bytes = 0

    def on_chunk_complete(self) -> None:
        self._chunk_bytes = None

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
        if self._unhandled or self._handled >= AT_ONCE:
            self._unhandled.append(exchange)
        else:
            self._handled += 1
            self.shared.handle(exchange)

    def _parse_request_piece(self, piece: bytes) -> None:
        self._unfed = self._unfed[len(piece) :]
        self._overhead += len(piece)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._deaf:
                self._ignore_upgrade(piece[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse_request(Refused("not an HTTP/1.1 request"))
        self._check_chunk_size(piece)
        # A header, trailer or chunk extension without an end is not seen by the callbacks.
        if self._receiving and self._overhead > _MAX_HEAD_BYTES + PIECE_BYTES + 16 * len(self._body):
            self._refuse_request(_build_head_refusal())

    def _check_chunk_size(self, piece: bytes) -> None:
        """Refuse a chunk whose stated size is over the limit when its first line has arrived, not its body."""
        if not self._receiving or self._deaf or b"transfer-encoding" not in self._headers:
            return
        received = self._before + piece
        self._before = received[-_CHUNK_LINE_BYTES:]
        arrived = self._chunk_bytes
        if arrived is None or arrived >= len(piece):  # its first line came in an earlier piece
            return
        # httptools does not report the size: what precedes the bytes of an open chunk in a piece is its first line.
        first, _, rest = received[: len(received) - arrived].rpartition(b"\n")
        line = first.rpartition(b"\n")[2]
        if rest:  # a trailer, after the last chunk, that is still arriving
            return
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            return
        if len(self._body) - arrived + size > self._limit:
            self._refuse_request(build_size_refusal(self._limit))

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
        # Its head may not be complete; what names the request is taken as far as it has come.
        headers = {name: self._headers[name] for name in TRACED if name in self._headers}
        exchange = Exchange(self, self._head._replace(headers=headers), b"", keep=False)
        self._waiting.append(exchange)
        self.shared.refuse(exchange, refused)


def _build_head_refusal() -> Refused:
    return Refused(f"the head of the request is over {_MAX_HEAD_BYTES} bytes", 431)
