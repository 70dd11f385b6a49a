"""The result of a notification, and a time limit that holds whatever the other side does.

A recipient that is slow must not get a document twice: once all of it was sent, its answer is awaited longer, and if
none comes, it may have arrived, and is not sent again at once.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class DeliveryResult:
    """The result of a notification.

    Attributes:
        arrived: True if it was accepted.
        can_retry: True if a retry may succeed.
        why: the reason why it was not accepted.
        may_have_arrived: True if all of it was sent, and no answer came: a retry may deliver it twice.
    """

    arrived: bool
    can_retry: bool
    why: str = ""
    may_have_arrived: bool = False


class DocumentRecipient(Protocol):
    """The recipient of documents: a webhook, a mail server, a command, a service of apprise."""

    @property
    def label(self) -> str:
        """The recipient, for messages; without any secret."""

    def send_document(self, document: Mapping[str, Any]) -> DeliveryResult:
        """Send a document, in bounded time."""


class SendProgress:
    """Records that all of a document was sent.

    Args:
        answer_s: seconds to wait for an answer then.
    """

    def __init__(self, answer_s: float) -> None:
        self.answer_s = answer_s
        self._sent = threading.Event()

    @property
    def is_sent(self) -> bool:
        """True once all was sent."""
        return self._sent.is_set()

    def await_answer(self, connection: socket.socket | None) -> None:
        """Note that all was sent, and give the connection the time for the answer."""
        self._sent.set()
        if connection is not None:
            connection.settimeout(self.answer_s)


def run_with_timeout(
    seconds: float, send: Callable[[], DeliveryResult], name: str, progress: SendProgress | None = None
) -> DeliveryResult:
    """Run `send` in a thread and wait at most `seconds`, and `progress.answer_s` more once all was sent. A socket's
    timeout is not enough: it does not cover a slow name lookup, and a server that answers one byte at a time resets it.
    """
    results: list[DeliveryResult] = []
    # A daemon: a thread that still hangs must not keep the process alive at its end.
    thread = threading.Thread(target=lambda: results.append(send()), name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    if not results and progress is not None and progress.is_sent:
        thread.join(progress.answer_s)
        seconds += progress.answer_s
    is_sent = progress is not None and progress.is_sent
    return results[0] if results else DeliveryResult(False, True, f"no answer within {seconds:g} s", is_sent)
