"""A vertical axis on a logarithmic scale: ticks at powers of ten, or at 1, 2 and 5 times these within a few decades."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlscale.report.canvas import Axis

_MOST_TICKS = 6
_FEW_DECADES = 2.0  # up to which 2 and 5 times a power of ten are ticks, too


class LogAxis(Axis):
    """Maps positive values to positions."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        factors = (1.0, 2.0, 5.0) if math.log10(high / low) <= _FEW_DECADES else (1.0,)
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        marks = [factor * 10.0**power for power in powers for factor in factors]
        # From the last mark at or below all values to the first one at or above; the tolerance is for rounding errors.
        first = max(index for index, mark in enumerate(marks) if mark <= low * (1 + 1e-9))
        last = max(first + 1, min(index for index, mark in enumerate(marks) if mark >= high * (1 - 1e-9)))
        every = math.ceil((last - first) / _MOST_TICKS)
        self.ticks = marks[first : last + 1 : every]
        self._low, self._high = math.log10(marks[first]), math.log10(marks[last])
        self._start, self._end = start, end

    def scale_value(self, value: float) -> float:
        """Return the position of a value."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)
