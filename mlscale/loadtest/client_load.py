"""How much the client itself had to do: a client that is at its limit measures itself, not the server.

Locust computes in one thread, so one core is all that it can use. Linux counts for each thread how long it computed and
how long it could have, but waited for a core that others had (`schedstat`): both together are the time in which it had
something to do. Where the system does not count the second, only the first is known.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlscale.loadtest.latency_histogram import Latencies

_SCHEDSTAT = Path("/proc/thread-self/schedstat")


@dataclass
class ClientLoad:
    """What the client did while it measured, and what it can do by itself.

    Attributes:
        cpu_s: seconds that it computed.
        wait_s: seconds that it waited for a core; 0 where the system does not count them.
        lag: how late its event loop was, in ms: an answer may wait so long before it is read.
        empty_requests_per_s: what it got from a server that answers the same bytes at once; 0 where it was not tried.
        empty: latencies that it saw there: its own.
    """

    cpu_s: float = 0.0
    wait_s: float = 0.0
    lag: Latencies = field(default_factory=Latencies)
    empty_requests_per_s: float = 0.0
    empty: Latencies = field(default_factory=Latencies)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        plain = {"cpu_s": self.cpu_s, "wait_s": self.wait_s, "empty_requests_per_s": self.empty_requests_per_s}
        return {**plain, "lag": self.lag.as_dict(), "empty": self.empty.as_dict()}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ClientLoad:
        """What `as_dict` gave."""
        latencies = {name: Latencies.from_dict(document[name]) for name in ("lag", "empty")}
        return cls(**{**document, **latencies})


def read_usage() -> tuple[float, float]:
    """Return the seconds that this process has computed, and that this thread has waited for a core."""
    try:
        waited_ns = int(_SCHEDSTAT.read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        waited_ns = 0
    return time.process_time(), 1e-9 * waited_ns
