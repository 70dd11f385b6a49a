"""The exception for requests that are refused."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A refused request, with the response that the client gets.

    Args:
        message: one sentence, sent as `{"error": message}`.
        status: the HTTP status; 400 is the client's mistake.
        headers: more header lines, each ending in CR LF.
    """

    def __init__(self, message: str, status: int = 400, headers: bytes = b"") -> None:
        super().__init__(message)
        self.message, self.status, self.headers = message, status, headers
