"""Answers, and their count: whatever goes out passes here once."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlscale.serve.http.exchange import COMPACT, JSON, Exchange
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol.prometheus import Metrics

INFERENCE = ("infer", "predict")
"""Routes whose time is measured."""


class Answers:
    """Answers exchanges.

    Args:
        metrics: where they are counted.
        say: writes a line to the log.
    """

    def __init__(self, metrics: Metrics, say: Callable[[str], None]) -> None:
        self.metrics, self.say = metrics, say

    def plain(
        self, exchange: Exchange, body: bytes = b"", kind: bytes = JSON, headers: bytes = b"", status: int = 200
    ) -> None:
        """Answer with a body."""
        if status == 200 and exchange.route in INFERENCE:
            seconds = time.perf_counter() - exchange.arrived
            headers += _server_timing(exchange, seconds)
            self.metrics.latency.add(seconds)
        exchange.answer(status, body, kind, headers)
        self.metrics.requests[exchange.route, status] += 1

    def json(self, exchange: Exchange, document: object) -> None:
        """Answer with a document."""
        self.plain(exchange, COMPACT(document).encode())

    def refuse(self, exchange: Exchange, refused: Refused) -> None:
        """Tell a client why not."""
        text = COMPACT({"error": refused.message})
        self.plain(exchange, text.encode(), headers=refused.headers, status=refused.status)

    def broken(self, exchange: Exchange, error: Exception) -> None:
        """A bug of ours costs one request, not the server; the client is not told its inside."""
        self.say(f"a bug of ours: {exchange.route}: {error!r}")
        self.refuse(exchange, Refused("internal error", 500))

    def early(self, status: int) -> None:
        """Count a request that was answered before it was whole."""
        self.metrics.requests["unread", status] += 1


def _server_timing(exchange: Exchange, seconds: float) -> bytes:
    """The header `Server-Timing` (W3C), in ms: until its batch began, its batch, and from its last byte to now."""
    queue_s = exchange.began - exchange.arrived
    return b"Server-Timing: queue;dur=%.3f, compute;dur=%.3f, total;dur=%.3f\r\n" % (
        1000 * queue_s,
        1000 * exchange.compute_s,
        1000 * seconds,
    )


def only(exchange: Exchange, *methods: bytes) -> None:
    """See that a request has one of these methods.

    Raises:
        Refused: it has another (405).
    """
    if exchange.method not in methods:
        allowed = b", ".join(methods)
        raise Refused(f"send {allowed.decode()}", 405, b"Allow: %b\r\n" % allowed)
