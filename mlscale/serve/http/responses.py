"""Sends and counts responses: every response passes here once."""

from __future__ import annotations

import time
from collections.abc import Callable

from mlscale.serve.http.exchange import JSON, Exchange, encode_document
from mlscale.serve.http.request_error import Refused
from mlscale.serve.http.request_log import draw_id, format_access_line, read_client_id, read_traceparent
from mlscale.serve.prometheus import ServerMetrics

INFERENCE = ("infer", "predict")
"""Routes whose latency is measured."""


class ResponseSender:
    """Sends the responses of exchanges, and counts them.

    Args:
        metrics: the counters.
        log: writes a line to the log.
        access_log: write a line for each request.
    """

    def __init__(self, metrics: ServerMetrics, log: Callable[[str], None], *, access_log: bool = False) -> None:
        self.metrics, self.log, self._access_log = metrics, log, access_log

    def send_body(
        self, exchange: Exchange, body: bytes = b"", kind: bytes = JSON, headers: bytes = b"", status: int = 200
    ) -> None:
        """Send a body."""
        # Errors are left out: they return early, and would make the latency look better than it is.
        if status == 200 and exchange.route in INFERENCE:
            seconds = time.perf_counter() - exchange.arrived
            headers += _format_server_timing(exchange, seconds)
            self.metrics.latency.add_value(seconds)
        if trace := read_traceparent(exchange.headers):
            headers += b"traceparent: %b\r\n" % trace
        if self._access_log:
            self.log(format_access_line(exchange, status, time.perf_counter() - exchange.arrived))
        exchange.send_response(status, body, kind, headers)
        self.metrics.requests[exchange.route, status] += 1

    def send_json(self, exchange: Exchange, document: object) -> None:
        """Send a document as JSON."""
        self.send_body(exchange, encode_document(document))

    def send_refusal(self, exchange: Exchange, refused: Refused) -> None:
        """Send an error response with an id, the client's or a new one, by which both sides find it in their logs."""
        exchange.id = exchange.id or refused.request_id or read_client_id(exchange.headers) or draw_id()
        headers = refused.headers + b"mlscale-id: %b\r\n" % exchange.id.encode()
        self.send_body(exchange, encode_document({"error": refused.message}), headers=headers, status=refused.status)

    def send_internal_error(self, exchange: Exchange, error: Exception) -> None:
        """Log an unexpected error and answer with status 500, without its details."""
        # A bug must cost one request, not the server; its text may hold paths or data that are not for clients.
        self.log(f"a bug in mlscale: {exchange.route}: {error!r}")
        self.send_refusal(exchange, Refused("internal error", 500))

    def send_early_refusal(self, exchange: Exchange, refused: Refused) -> None:
        """Send an error response to a request that is not complete."""
        exchange.route = "unread"
        self.send_refusal(exchange, refused)


def _format_server_timing(exchange: Exchange, seconds: float) -> bytes:
    """Return the header `Server-Timing` (W3C), in ms: wait for its batch, its batch, and from its last byte to now."""
    queue_s = exchange.began - exchange.arrived
    return b"Server-Timing: queue;dur=%.3f, compute;dur=%.3f, total;dur=%.3f\r\n" % (
        1000 * queue_s,
        1000 * exchange.compute_s,
        1000 * seconds,
    )


def check_method(exchange: Exchange, *methods: bytes) -> None:
    """Raise unless a request has one of these methods.

    Raises:
        Refused: it has another one (405).
    """
    if exchange.method not in methods:
        allowed = b", ".join(methods)
        # RFC 9110, 15.5.6: a 405 lists the allowed methods.
        raise Refused(f"send {allowed.decode()}", 405, b"Allow: %b\r\n" % allowed)
