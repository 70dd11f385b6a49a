"""Confidence intervals of proportions and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        value: the estimate.
        low, high: the ends; -inf or inf where the samples do not bound it.
    """

    value: float
    low: float
    high: float


def compute_wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share: Probable inference, 1927. Valid for few samples and near 0 and 1.

    Args:
        successes: of n, n ≥ 1.
        confidence: two-sided; each end alone has (1 + confidence) / 2.

    Raises:
        ValueError: n is less than 1, successes are none of n, or the confidence is not between 0 and 1.
    """
    from scipy.stats import binomtest

    if not (n >= 1 and 0 <= successes <= n):
        raise ValueError(f"{successes} of {n} is not a share")
    check_confidence(confidence)
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(interval.low), float(interval.high))


def compute_share_interval(value: float, variance: float, n: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's interval of a share that is not a plain count, for the number of trials with the same variance.

    For dependent trials, and for metrics that behave like shares; the best such interval near 0 and 1: Franco et al.,
    Comparative study of confidence intervals for proportions in complex sample surveys, 2019.

    Args:
        value: the share, 0 to 1.
        variance: of it, as estimated; NaN where it is not known.
        n: trials, n ≥ 1; used where the value is so near 0 or 1 that its variance can hardly be estimated.
        confidence: two-sided.

    Raises:
        ValueError: n is less than 1, the value is not a share, or the confidence is not between 0 and 1.
    """
    from scipy.stats import norm

    if not (n >= 1 and 0 <= value <= 1):
        raise ValueError(f"{value} of {n} trials is not a share")
    check_confidence(confidence)
    binomial = value * (1 - value) / n
    trials = n / estimate_variance_scale(value, variance / binomial if binomial > 0 else 1.0, n)
    z2 = float(norm.ppf((1 + confidence) / 2)) ** 2
    middle = (value + z2 / (2 * trials)) / (1 + z2 / trials)
    half = math.sqrt(z2 * value * (1 - value) / trials + z2 * z2 / (4 * trials * trials)) / (1 + z2 / trials)
    # Rounding could put an end on the wrong side of the value.
    return Interval(value, max(0.0, min(middle - half, value)), min(1.0, max(middle + half, value)))


def estimate_variance_scale(value: float, observed: float, n: int) -> float:
    """Return the true variance in multiples of the model's: the observed ratio, shrunk towards 1 where the value is so
    near 0 or 1 that hardly any samples determine it."""
    errors = 2 * n * min(value, 1 - value)
    if not math.isfinite(observed) or errors <= 0:
        return 1.0
    return max((errors * observed + 1) / (errors + 1), 1e-6)


def average_intervals(parts: Sequence[Interval]) -> Interval:
    """Return the mean of independent estimates: the squares of their distances to the ends add up.

    Zou and Donner, Construction of confidence intervals about effect measures: a general approach, Statistics in
    Medicine 27, 2008 (MOVER).

    Args:
        parts: one or more, of the same confidence.
    """
    values, low, high = np.array([(part.value, part.low, part.high) for part in parts]).T
    mean, n = float(values.mean()), len(parts)
    return Interval(mean, mean - math.hypot(*(values - low)) / n, mean + math.hypot(*(high - values)) / n)


def compute_quantile_interval(values: NDArray[Any], q: float, confidence: float = 0.95) -> Interval:
    """Return a quantile with an interval of order statistics, which is valid for every distribution.

    Conover, Practical nonparametric statistics, 1999, chapter 3.2: of n values, the number below the true quantile is
    binomial. Few values do not bound a far quantile: the 99th percentile has an upper end from 368 values on.

    Args:
        values: numbers (n,), n ≥ 1.
        q: between 0 and 1; 0.99 is the 99th percentile.
        confidence: of the interval, two-sided.

    Raises:
        ValueError: no values, NaN among them, or q or the confidence is not between 0 and 1.
    """
    from scipy.stats import binom

    ordered = np.sort(np.asarray(values, np.float64))
    if ordered.ndim != 1 or not len(ordered) or np.isnan(ordered).any():
        raise ValueError(f"a quantile needs numbers, and these are {ordered.shape} with {np.isnan(ordered).sum()} NaN")
    if not 0 < q < 1:
        raise ValueError(f"q must be between 0 and 1, and is {q}")
    check_confidence(confidence)
    n, tail = len(ordered), (1 - confidence) / 2
    # P(B ≤ low − 1) ≤ tail and P(B ≥ high) ≤ tail for the binomial B, as ranks that count from one.
    low = int(binom.ppf(tail, n, q))
    high = int(binom.ppf(1 - tail, n, q)) + 1
    return Interval(
        float(np.quantile(ordered, q, method="inverted_cdf")),
        float(ordered[low - 1]) if low >= 1 else -math.inf,
        float(ordered[high - 1]) if high <= n else math.inf,
    )


def check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, and is {confidence}")
