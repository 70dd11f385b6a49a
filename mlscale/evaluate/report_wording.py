"""What a judge says, and how it words figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlscale.report import Figure
from mlscale.report import text as shown
from mlscale.report.text import number
from mlscale.stats.intervals import Interval

LEAST = 30
"""Samples of a class or slice below which its figures say little."""


@dataclass(frozen=True)
class Judged:
    """What came of a judge.

    Attributes:
        metrics: name with its unit, without the split, to value; an interval's ends as `x_low` and `x_high`.
        headline: the metric that sums it up, as `name value [low, high]`.
        remarks: what a person would add, a sentence each.
        figures: for the page, in order.
        details: lists of classes and the like, for the document.
    """

    metrics: Mapping[str, float]
    headline: str
    remarks: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def joined(first: Judged, second: Judged) -> Judged:
    """Both, the figures of the second first: it is what was asked for."""
    return Judged(
        metrics={**first.metrics, **second.metrics},
        headline=first.headline,
        remarks=[*second.remarks, *first.remarks],
        figures=[*second.figures, *first.figures],
        details={**second.details, **first.details},
    )


def named(name: str, interval: Interval) -> dict[str, float]:
    """An interval as three metrics."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def entry(interval: Interval) -> dict[str, float]:
    """An interval as the document has it."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def percent(value: float) -> str:
    """A share, such as 98.3 %."""
    return "–" if value != value else shown.percent(value, unit=" %")


def in_percent(interval: Interval) -> str:
    """A share with its interval: 98.3 % [95.1, 99.4]."""
    if interval.value != interval.value:
        return "–"
    if interval.low != interval.low:
        return percent(interval.value)
    low, high = (shown.percent(end, unit="") for end in (interval.low, interval.high))
    return f"{percent(interval.value)} [{low}, {high}]"


def in_numbers(interval: Interval) -> str:
    """A figure with its interval: 0.123 [0.101, 0.15]."""
    if interval.value != interval.value:
        return "–"
    if interval.low != interval.low:
        return number(interval.value, 3)
    return f"{number(interval.value, 3)} [{number(interval.low, 3)}, {number(interval.high, 3)}]"


def in_points(interval: Interval) -> str:
    """A difference of shares, in percentage points: +1.1 [0.4, 1.9]."""
    if interval.low != interval.low:
        return f"{100 * interval.value:+.1f}"
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def chance(p: float) -> str:
    """A p-value."""
    return "–" if p != p else "< 0.001" if p < 0.001 else f"{p:.3f}"
