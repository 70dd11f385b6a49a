"""How sure a share or a quantile is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """An estimate and where the truth lies with the confidence that was asked for.

    Attributes:
        value: the estimate.
        low, high: the ends; -inf or inf where the samples do not bound it.
    """

    value: float
    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share: Probable inference, 1927. Holds for few samples and for shares near 0 and 1.

    Args:
        successes: of n, n ≥ 1.
        confidence: that the truth lies within, two-sided; each end alone holds with (1 + confidence) / 2.

    Raises:
        ValueError: n is less than 1, successes are none of n, or the confidence is not between 0 and 1.
    """
    from scipy.stats import binomtest

    if not (n >= 1 and 0 <= successes <= n):
        raise ValueError(f"{successes} of {n} is not a share")
    _check_confidence(confidence)
    found = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(found.low), float(found.high))


def quantile(values: NDArray[Any], q: float, confidence: float = 0.95) -> Interval:
    """A quantile, and an interval of order statistics that holds for every distribution.

    Conover, Practical nonparametric statistics, 1999, chapter 3.2: of n values, the number below the true quantile is
    binomial. Few values do not bound a far quantile: the 99th percentile has an upper end from 368 values on.

    Args:
        values: numbers (n,), n ≥ 1.
        q: between 0 and 1; 0.99 is the 99th percentile.
        confidence: that the truth lies within, two-sided.

    Raises:
        ValueError: no values, NaN among them, or q or the confidence is not between 0 and 1.
    """
    from scipy.stats import binom

    ordered = np.sort(np.asarray(values, np.float64))
    if ordered.ndim != 1 or not len(ordered) or np.isnan(ordered).any():
        raise ValueError(f"a quantile needs numbers, and these are {ordered.shape} with {np.isnan(ordered).sum()} NaN")
    if not 0 < q < 1:
        raise ValueError(f"q must be between 0 and 1, and is {q}")
    _check_confidence(confidence)
    n, tail = len(ordered), (1 - confidence) / 2
    # P(B ≤ low − 1) ≤ tail and P(B ≥ high) ≤ tail for the binomial B, as ranks that count from one.
    low = int(binom.ppf(tail, n, q))
    high = int(binom.ppf(1 - tail, n, q)) + 1
    return Interval(
        float(np.quantile(ordered, q, method="inverted_cdf")),
        float(ordered[low - 1]) if low >= 1 else -math.inf,
        float(ordered[high - 1]) if high <= n else math.inf,
    )


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, and is {confidence}")
