"""The change of the score of labelled events since the reference: how sure it is, and its words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.reference.column_sketch import ScoreReference
from mlscale.report import format_number, text
from mlscale.stats.autocorrelation import estimate_correlation_time
from mlscale.stats.bootstrap import MIN_SAMPLES, bootstrap_intervals
from mlscale.stats.design_effect import estimate_group_time
from mlscale.stats.intervals import Interval, compute_share_interval

_MAX_DRAWN = 1000
"""The most scores that a bootstrap draws from; the mean of more is normal, and a bootstrap would take 0.1 s a look."""


@dataclass(frozen=True)
class ScoreChange:
    """The score of labelled events next to that of the reference.

    Attributes:
        reference: the score of the reference.
        mean: of the events, with its interval; NaN ends where there are too few.
        loss: what is surely lost, at the confidence of the interval: of a share in points, of any other score relative
            to the reference's mean; negative where nothing is, NaN where there are too few scores.
    """

    reference: ScoreReference
    mean: Interval
    loss: float

    @property
    def name(self) -> str:
        """The name of the score in sentences."""
        return self.reference.display_name

    def describe_change(self, samples: int, what: str) -> str:
        """Return the two means in words: accuracy 92.3 % of 300 labelled, reference 98.1 %."""
        now, before = (self._format_mean(value) for value in (self.mean.value, self.reference.mean))
        # 'absolute error 82.4 of 200' would be read as a part of 200.
        of = "of" if self.reference.is_share else "over"
        return f"{self.name} {now} {of} {samples:,} {what}, reference {before}"

    def _format_mean(self, value: float) -> str:
        if self.reference.is_share:
            return format_rounded_percent(value)
        # 'nats per token' has its unit in its name.
        unit = self.reference.unit if self.reference.unit not in self.reference.name.split("_") else ""
        return f"{format_number(value, 3)}{f' {unit}' if unit else ''}"


def compare_scores(
    reference: ScoreReference, scores: NDArray[np.float64], confidence: float, groups: NDArray[np.int64] | None = None
) -> ScoreChange:
    """Return the change of the mean score.

    Of 0 and 1 by Wilson's interval, with the reference's mean as exact. Of numbers both means have an interval, and
    that of their difference is made of the two (MOVER; Zou and Donner, Construction of confidence limits about effect
    measures, Statistics in Medicine 27, 2008): errors differ more from sample to sample, and references may be small.

    Args:
        reference: the score of the reference.
        scores: of labelled events in the order of time, (l,), l ≥ 1, without NaN.
        confidence: of the intervals, two-sided.
        groups: the number of each event's group, whose scores may be alike, (l,); None if not known.
    """
    effect, n = 1.0 if groups is None else estimate_group_time(scores, groups), len(scores)
    if reference.is_binary:
        share = float(scores.mean())
        mean = compute_share_interval(share, effect * share * (1 - share) / n, n, confidence)
        lost = reference.mean - mean.high if reference.higher_is_better else mean.low - reference.mean
        return ScoreChange(reference, mean, lost)
    mean = estimate_mean(scores, confidence, max(effect, estimate_correlation_time(scores)))
    before = Interval(reference.mean, reference.mean, reference.mean)
    if len(reference.values):
        # The order of validation files has nothing to do with time.
        drawn = estimate_mean(reference.values, confidence, reference.correlation_time)
        before = _move_interval(drawn, reference.mean)
    if reference.higher_is_better:
        loss = before.value - mean.value - math.hypot(before.value - before.low, mean.high - mean.value)
    else:
        loss = mean.value - before.value - math.hypot(before.high - before.value, mean.value - mean.low)
    if not reference.is_share and not math.isnan(loss):
        loss = _divide_loss(loss, abs(reference.mean))
    return ScoreChange(reference, mean, loss)


def estimate_mean(values: NDArray[np.float64], confidence: float, correlation_time: float = 1.0) -> Interval:
    """Return the mean of n values with its interval: BCa of up to 1,000, Student's of more; NaN ends below ten.

    Args:
        values: (n,), n ≥ 1, finite.
        confidence: two-sided.
        correlation_time: the number of values that are worth an independent one.
    """
    n, value = len(values), float(values.mean())
    if n < MIN_SAMPLES:
        return Interval(value, math.nan, math.nan)
    # The interval of a constant is a point: the bootstrap has none.
    if (values == values[0]).all():
        return Interval(value, value, value)
    if n <= _MAX_DRAWN:
        rows = np.stack([values, np.ones(n)], 1)
        drawn = bootstrap_intervals(rows, lambda sums: sums[:, :1] / sums[:, 1:], confidence=confidence)[0]
        low, high = drawn.low, drawn.high
    else:
        from scipy.stats import t

        half = float(t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
        low, high = value - half, value + half
    # Fewer independent values than there are.
    scale = math.sqrt(correlation_time)
    return Interval(value, value - (value - low) * scale, value + (high - value) * scale)


def _move_interval(interval: Interval, mean: float) -> Interval:
    """Return the interval of a sample of the values around the mean of all."""
    change = mean - interval.value
    return Interval(mean, interval.low + change, interval.high + change)


def _divide_loss(loss: float, mean: float) -> float:
    if mean:
        return loss / mean
    # A reference without any error: every error is infinitely larger.
    return math.inf if loss > 0 else loss


def format_rounded_percent(share: float) -> str:
    """Return a share in percent: 0.9876 as 98.8 %."""
    return text.format_percent(share, 1, unit=" %") if 0.99 < share < 1 else f"{100 * share:.3g} %"
