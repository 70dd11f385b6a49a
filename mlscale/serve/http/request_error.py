"""A request that is not answered with a prediction."""

from __future__ import annotations


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """What the client is told.

    Args:
        message: one sentence; goes out as `{"error": message}`.
        status: of HTTP; 400 is the client's mistake.
        headers: more lines of the head, each ending in CR LF.
    """

    def __init__(self, message: str, status: int = 400, headers: bytes = b"") -> None:
        super().__init__(message)
        self.message, self.status, self.headers = message, status, headers
