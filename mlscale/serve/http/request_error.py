"""The exception for requests that are refused."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A refused request, with the response that the client gets.

    Args:
        message: one sentence, sent as `{"error": message}`.
        status: the HTTP status; 400 is the client's mistake.
        headers: more header lines, each ending in CR LF.
        request_id: that of the request's body, where it was read before the fault was found.
    """

    def __init__(self, message: str, status: int = 400, headers: bytes = b"", request_id: str = "") -> None:
        super().__init__(message)
        self.message, self.status, self.headers = message, status, headers
        self.request_id = request_id
