"""A horizontal axis of times: ticks at whole minutes, hours, days, weeks and months, in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from mlscale.report.canvas import Axis

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_STEPS = (
    *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * n for n in (1, 2, 3, 6, 12)),
    *(_DAY * n for n in (1, 2, 7, 14, 28, 91, 182, 364)),
)
_MOST_TICKS = 5
_MONDAY = datetime(1970, 1, 5, tzinfo=UTC).timestamp()  # weeks begin then


class TimeAxis(Axis):
    """Maps seconds since 1970 to positions."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        if high - low < _MINUTE:
            # A single check is a point in the middle of two minutes.
            low, high = low - _MINUTE, high + _MINUTE
        super().__init__([low, high], start, end)
        span = high - low
        self.step = next((step for step in _STEPS if span / step <= _MOST_TICKS), _STEPS[-1])
        origin = _MONDAY if self.step >= 7 * _DAY else 0.0
        first = -((origin - low) // self.step)
        count = int(span // self.step) + 1
        self.ticks = [time for n in range(count) if (time := origin + (first + n) * self.step) <= high]
        # Within a day the date is the same on each tick.
        self._has_dates = span > _DAY or self.step >= _DAY

    def format_tick(self, time: float) -> str:
        """Return the label of a tick: 5 Jan, 10:30, or both."""
        moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=time)
        date = f"{moment.day} {moment:%b}" + (f" {moment:%y}" if self.step >= 91 * _DAY else "")
        if self.step >= _DAY:
            return date
        return f"{date} {moment:%H:%M}" if self._has_dates else f"{moment:%H:%M}"
