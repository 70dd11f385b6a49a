"""How long one sample takes in two implementations, measured in turns so that a busy machine disturbs both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WARM_UP, _ROUNDS, _SECONDS = 5, 30, 1.0


def medians(*calls: Callable[[], object]) -> tuple[float, ...]:
    """Median milliseconds of each call: 30 rounds, more of quick ones until a second has passed."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        for _ in range(_WARM_UP):
            call()
    start = time.perf_counter()
    while len(times[0]) < _ROUNDS or (time.perf_counter() - start < _SECONDS and len(times[0]) < 1000):
        for call, taken in zip(calls, times, strict=True):
            before = time.perf_counter()
            call()
            taken.append(time.perf_counter() - before)
    return tuple(1000 * statistics.median(taken) for taken in times)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread in this block: as each of several workers of a server does."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
