"""The result of a notification, and a time limit that holds whatever the other side does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sent:
    """The result of a notification.

    Attributes:
        arrived: True if it was accepted.
        again: True if a retry may succeed.
        why: the reason why it was not accepted.
    """

    arrived: bool
    again: bool
    why: str = ""


def within(seconds: float, send: Callable[[], Sent], name: str) -> Sent:
    """Run `send` in a thread and wait at most `seconds`. A socket's timeout is not enough: it does not cover a slow
    name lookup, and a server that answers one byte at a time resets it."""
    found: list[Sent] = []
    # A daemon: a thread that still hangs must not keep the process alive at its end.
    thread = threading.Thread(target=lambda: found.append(send()), name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else Sent(False, True, f"no answer within {seconds:g} s")
