"""The headers by which a request is found again in other programs' logs, and the line of the access log."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from mlscale.serve.http.exchange import Exchange

# W3C Trace Context: version, trace id, parent id, flags; a later version may have more after them.
_TRACE = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?")
_ID = re.compile(rb"[!-~]{1,200}")
TRACED = (b"traceparent", b"triton-request-id", b"x-request-id", b"mlscale-id")
"""The headers by which a request is found again."""
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def read_traceparent(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the header `traceparent` (W3C Trace Context); b"" where it is absent or not valid, which is ignored."""
    given = headers.get(b"traceparent", b"")
    return given if len(given) <= 256 and _TRACE.fullmatch(given) else b""


def read_request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the header `triton-request-id`, or `x-request-id`, of requests without an id of their own; '' for none."""
    given = headers.get(b"triton-request-id") or headers.get(b"x-request-id") or b""
    return given.decode() if _ID.fullmatch(given) else ""


def read_group(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the header `mlscale-group`: the user or session of a request; None where it is absent or not valid."""
    given = headers.get(b"mlscale-group", b"")
    return given.decode() if _ID.fullmatch(given) else None


def read_client_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the id of a request that is refused, by its headers; '' where the client has sent none."""
    named = headers.get(b"mlscale-id", b"")
    return read_request_id(headers) or (named.decode() if _ID.fullmatch(named) else "")


def draw_id() -> str:
    """Return an id of 96 random bits: a client can't guess that of another client's prediction, and label it."""
    return os.urandom(12).hex()


def format_trace(headers: Mapping[bytes, bytes]) -> str:
    """Return the trace id of a request; '' where it has none."""
    match = _TRACE.fullmatch(read_traceparent(headers))
    return match[1].decode() if match else ""


def format_access_line(exchange: Exchange, status: int, seconds: float) -> str:
    """Return the line of a request in the access log, as JSON, without content and address: they may be personal."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "route": exchange.route,
        "status": status,
        "ms": round(1000 * seconds, 3),
    }
    trace = format_trace(exchange.headers)
    return _COMPACT(line | ({"id": exchange.id} if exchange.id else {}) | ({"trace": trace} if trace else {}))
