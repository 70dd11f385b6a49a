"""The time that Python code takes, whatever else the machine does."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds."""


def read_cpu_clock() -> float:
    """Return the seconds that this thread has computed: what other processes take away is not counted."""
    return time.thread_time()


def read_busy_clock() -> float:
    """Return seconds without those that this thread has waited for a core: it computed, or waited for a disk."""
    return time.perf_counter() - _read_queue_seconds()


def _read_queue_seconds() -> float:
    try:
        # Nanoseconds on a core, nanoseconds waiting for one, time slices.
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # not Linux, or a kernel without these statistics
        return time.perf_counter() - time.thread_time()
