"""What came of telling somebody, and how to tell within a time whatever the other side does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Sent:
    """What came of it.

    Attributes:
        arrived: it was taken.
        again: another try may do better.
        why: it was not taken.
    """

    arrived: bool
    again: bool
    why: str = ""


def within(seconds: float, send: Callable[[], Sent], name: str) -> Sent:
    """`send`, in a thread of its own: a name that takes minutes to look up, or a server that answers one byte at a
    time, would keep every time-out of a socket waiting."""
    found: list[Sent] = []
    thread = threading.Thread(target=lambda: found.append(send()), name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else Sent(False, True, f"no answer within {seconds:g} s")
