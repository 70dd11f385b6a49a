"""The result of an evaluation report, and the wording of metrics with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlscale.report import Figure
from mlscale.report import text as shown
from mlscale.report.text import format_number
from mlscale.stats.intervals import Interval

MIN_RELIABLE_SAMPLES = 30
"""Samples of a class or slice below which its metrics are too uncertain to act on."""

FEW_SAMPLES_NOTE = f"* fewer than {MIN_RELIABLE_SAMPLES} samples: imprecise."


@dataclass(frozen=True)
class EvaluationReport:
    """The result of one evaluation report.

    Attributes:
        metrics: name with its unit, without the split, to value; an interval's ends as `x_low` and `x_high`.
        headline: the key metric, as `name value [low, high]`.
        remarks: findings for a reader, one sentence each.
        blocks: for the page, in order.
        details: lists of classes and the like, for the document.
    """

    metrics: Mapping[str, float]
    headline: str
    remarks: Sequence[str] = ()
    blocks: Sequence[Figure] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


def merge_reports(first: EvaluationReport, second: EvaluationReport) -> EvaluationReport:
    """Return both results as one; figures and remarks of the second come first, as it is the one requested."""
    return EvaluationReport(
        metrics={**first.metrics, **second.metrics},
        headline=first.headline,
        remarks=[*second.remarks, *first.remarks],
        blocks=[*second.blocks, *first.blocks],
        details={**second.details, **first.details},
    )


def mark_few_samples(name: str, samples: int) -> str:
    """Return the name of a class or slice, with the mark of `FEW_SAMPLES_NOTE` where its metrics are imprecise."""
    return f"{name} *" if samples < MIN_RELIABLE_SAMPLES else name


def expand_interval(name: str, interval: Interval) -> dict[str, float]:
    """Return an interval as three metrics."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def serialize_interval(interval: Interval) -> dict[str, float]:
    """Return an interval as the JSON result has it."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def format_share(value: float) -> str:
    """Return a share as text, such as 98.3 %."""
    # NaN is the only value that differs from itself; it means 'not defined' here.
    return "–" if value != value else shown.format_percent(value, unit=" %")


def format_share_interval(interval: Interval) -> str:
    """Return a share with its interval as text: 98.3 % [95.1, 99.4]."""
    if interval.value != interval.value:
        return "–"
    # Too few samples for an interval: the value is shown alone.
    if interval.low != interval.low:
        return format_share(interval.value)
    low, high = (shown.format_percent(end, unit="") for end in (interval.low, interval.high))
    return f"{format_share(interval.value)} [{low}, {high}]"


def format_number_interval(interval: Interval) -> str:
    """Return a number with its interval as text: 0.123 [0.101, 0.15]."""
    if interval.value != interval.value:
        return "–"
    if interval.low != interval.low:
        return format_number(interval.value, 3)
    return f"{format_number(interval.value, 3)} [{format_number(interval.low, 3)}, {format_number(interval.high, 3)}]"


def format_point_difference(interval: Interval) -> str:
    """Return a difference of shares as text, in percentage points: +1.1 [+0.4, +1.9]."""
    if interval.low != interval.low:
        return f"{100 * interval.value:+.1f}"
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def format_p_value(p: float) -> str:
    """Return a p-value as text."""
    return "–" if p != p else "< 0.001" if p < 0.001 else f"{p:.3f}"
