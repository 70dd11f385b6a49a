"""Measures the load of the client itself: a client at its limit measures itself, not the server.

Locust runs in one thread, so it can use one core only. Linux counts for each thread the time that it computed, and the
time that it was ready but waited for a core (`schedstat`): their sum is the time in which it was busy. Where the system
does not count the second, only the first is known.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from mlscale.loadtest.latency_histogram import LatencyHistogram

_SCHEDSTAT = Path("/proc/thread-self/schedstat")


@dataclass
class ClientLoad:
    """The load of the client while it measured, and its own limits.

    Attributes:
        cpu_s: seconds that it computed.
        wait_s: seconds that it waited for a core; 0 where the system does not count them.
        lag: delays of its event loop, in ms: an answer may wait so long before it is read.
        empty_requests_per_s: its rate with a server that answers the same bytes at once; 0 where it was not measured.
        empty: latencies that it measured there, which are its own.
    """

    cpu_s: float = 0.0
    wait_s: float = 0.0
    lag: LatencyHistogram = field(default_factory=LatencyHistogram)
    empty_requests_per_s: float = 0.0
    empty: LatencyHistogram = field(default_factory=LatencyHistogram)


def read_usage() -> tuple[float, float]:
    """Return the seconds that this process has computed, and that this thread has waited for a core."""
    try:
        # Fields: time on the CPU, time in the run queue (both ns), number of slices
        # (Documentation/scheduler/sched-stats).
        waited_ns = int(_SCHEDSTAT.read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        waited_ns = 0
    return time.process_time(), 1e-9 * waited_ns
