"""Cycles: earlier events of the same hours, and what a daily cycle could explain where there are none yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift.category_tests import CategoryWindow
from mlscale.monitor.drift.column_drift import Column
from mlscale.monitor.drift.number_tests import NumberWindow
from mlscale.stats.exceedances import compute_exceedance_p

_DAY, _WEEK = np.timedelta64(22, "h"), np.timedelta64(7 * 24 - 2, "h")  # events rarely span all of it
_PART_OF_DAY, _PART_OF_WEEK = 8.0, 4.0  # by simulation; a weekend is 1 / 3.5 of a week
_TAILS = (0.05, 0.01)
_IN_PART, _MOST_PARTS = 20, 24  # earlier events whose median is a stretch of the cycle; stretches of a window


@dataclass(frozen=True, eq=False)
class SeasonalReference:
    """Earlier events, at least a week of them; without the columns that have no week yet.

    Attributes:
        same_hours: columns of the same hours of the same weekday in earlier weeks, in the order of time.
        week: columns of the week before the window, in blocks that are evenly spread over it.
        times: of the events of the same hours, moved to the window's, datetime64[us] (n,); empty if not known.
    """

    same_hours: Mapping[str, Column] = field(repr=False)
    week: Mapping[str, Column] = field(repr=False)
    times: NDArray[np.datetime64] = field(default_factory=lambda: np.array([], "datetime64[us]"), repr=False)


def compute_usual_values(
    earlier: NDArray[np.float64], before: NDArray[np.datetime64], now: NDArray[np.datetime64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the usual value at the time of each earlier event, and of each of the window: a median of each stretch of
    it, float64 (m,) and (n,).

    Args:
        earlier: values of the same hours, (m,), NaN where missing.
        before, now: times of earlier events, in the hours of the window, and of the window's, (m,) and (n,).
    """
    parts = int(np.clip(len(earlier) // _IN_PART, 1, _MOST_PARTS))
    start, span = now.min(), max(now.max() - now.min(), np.timedelta64(1, "us"))
    at = [np.clip((times - start) / span * parts, 0, parts - 1).astype(np.int64) for times in (before, now)]
    finite = earlier[np.isfinite(earlier)]
    overall = float(np.median(finite)) if len(finite) else 0.0
    inside = [earlier[(at[0] == part) & np.isfinite(earlier)] for part in range(parts)]
    usual = np.array([float(np.median(values)) if len(values) else overall for values in inside])
    return usual[at[0]], usual[at[1]]


def compute_cycle_ratio(times: NDArray[np.datetime64]) -> float:
    """Return how many times as frequent a value may be in a window as in the reference by a cycle alone.

    1 if the window covers a week, or the times of its events are not known.
    """
    span = times.max() - times.min() if len(times) else _WEEK
    return 1.0 if span >= _WEEK else _PART_OF_WEEK if span >= _DAY else _PART_OF_DAY


def exceeds_any_cycle(window: NumberWindow | CategoryWindow, ratio: float, p: float) -> bool:
    """Return True if a cycle can't explain the window.

    By a cycle, the window is a part of what the reference is the whole of: some hours of the day, or days of the week.
    A value can then be as many times as frequent as in the reference as these hours are rarer than all.

    Args:
        window: of a column.
        ratio: the largest one that a cycle explains, see `compute_cycle_ratio`.
        p: the chance of a result of True where a cycle explains all.
    """
    # A category is rarer or more frequent as a whole; of numbers the tails show it.
    if isinstance(window, CategoryWindow):
        before, now = window.table
    else:
        before, now = _count_tails(window)
    # The reference is a sample: its counts, times the ratio, are what a cycle could show.
    sketch = window.sketch
    scale = sketch.effective / sketch.known
    # One more than was seen, since a rare value may be absent by chance; and at most all samples.
    many = np.minimum(ratio * (before + 1), sketch.known) * scale
    chances = compute_exceedance_p(now / window.correlation_time, window.effective, many, sketch.effective)
    # Bonferroni: the smallest of several chances, none of which was chosen before.
    return bool(chances.min() * len(chances) <= p)


def _count_tails(window: NumberWindow) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of values beyond some thresholds, of the reference and of the window."""
    sketch, last = window.sketch, len(window.sketch.values) - 1
    before: list[int] = []
    now: list[int] = []
    for tail in (*_TAILS, 0.0):
        index = round(tail * last)
        now += window.count_outside(index)
        before += [int(sketch.ranks[index])] * 2
    return np.array(before, np.float64), np.array(now, np.float64)
