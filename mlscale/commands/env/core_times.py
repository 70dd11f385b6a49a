"""Time a fixed computation on a core of each process: links alone don't show cores that are throttled or shared."""

from __future__ import annotations

import time
from collections.abc import Mapping

from mlscale.commands.env.link_times import is_slow

_REPEATS = 3  # the fastest of them: a process that waits for a core once has no slow core
_ROUNDS = 6_000_000  # about 0.2 s, several periods of a limit on CPU time


def measure_core() -> float:
    """Return the seconds of a computation in Python, which differs less between sorts of CPU than vector code does."""
    return min(_compute_once() for _ in range(_REPEATS))


def _compute_once() -> float:
    began, value = time.perf_counter(), 0
    for number in range(_ROUNDS):
        value ^= number
    return time.perf_counter() - began


def find_slow_cores(times: Mapping[int, float]) -> list[int]:
    """Return the ranks whose computation takes much longer than those of the others; none of two."""
    return [rank for rank in sorted(times) if is_slow(times[rank], [v for r, v in times.items() if r != rank])]
