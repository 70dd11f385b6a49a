"""The result of a notification, and a time limit that holds whatever the other side does."""

from __future__ import annotations

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
    """

    arrived: bool
    can_retry: bool
    why: str = ""


class DocumentRecipient(Protocol):
    """Somebody who is sent documents: a webhook, a service of apprise."""

    @property
    def label(self) -> str:
        """The recipient, for messages; without any secret."""

    def send_document(self, document: Mapping[str, Any]) -> DeliveryResult:
        """Send a document, in bounded time."""


def run_with_timeout(seconds: float, send: Callable[[], DeliveryResult], name: str) -> DeliveryResult:
    """Run `send` in a thread and wait at most `seconds`. A socket's timeout is not enough: it does not cover a slow
    name lookup, and a server that answers one byte at a time resets it."""
    results: list[DeliveryResult] = []
    # A daemon: a thread that still hangs must not keep the process alive at its end.
    thread = threading.Thread(target=lambda: results.append(send()), name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else DeliveryResult(False, True, f"no answer within {seconds:g} s")
