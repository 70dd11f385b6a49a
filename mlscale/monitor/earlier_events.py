"""Earlier events of the same version, once there is a week of them: what a cycle looks like. Bounded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mlscale.events.event_table import Events

ReadEvents = Callable[[datetime, datetime, int], "Events"]
"""Returns the events from a time on and before another one, at most so many, the latest ones."""

_WEEKS = 4
_BLOCKS, _BLOCK_HOURS = 28, 6  # of the week before the window: four times of the day on each day
_MAX_WEEK_EVENTS = 10_000


def read_earlier_events(times: NDArray[np.datetime64], read: ReadEvents) -> tuple[list[Events], list[Events]] | None:
    """Return events of the same hours of earlier weeks, and of the week before, oldest block first.

    None where the same hours of a week ago have less than a quarter of the window's events: then a week of data does
    not exist yet.

    Args:
        times: of the window's events, datetime64[us] UTC (n,), n ≥ 1.
        read: reads events of the same version.
    """
    start, end = (moment.astype("datetime64[us]").item() for moment in (times[0], times[-1]))
    # Half open: the latest event belongs to its window.
    end += timedelta(microseconds=1)
    span = end - start
    # Of a window that is longer, the same hours of a week ago would be in it.
    if span > timedelta(days=7):
        return None
    same_hours: list[Events] = []
    for week in range(1, _WEEKS + 1):
        back = timedelta(days=7 * week)
        block = read(start - back, end - back, len(times))
        if len(block) * 4 < len(times):
            break
        same_hours.append(block)
    if not same_hours:
        return None
    # At most the distance between two blocks, so that no event is read twice.
    length = min(span, timedelta(hours=_BLOCK_HOURS))
    blocks = []
    for number in range(_BLOCKS, 0, -1):
        last = end - number * timedelta(hours=_BLOCK_HOURS)
        blocks.append(read(last - length, last, _MAX_WEEK_EVENTS // _BLOCKS))
    return same_hours[::-1], blocks
