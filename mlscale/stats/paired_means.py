"""Compare the means of two columns of numbers of the same samples, with the interval of their difference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.intervals import Interval

MIN_SAMPLES = 10
"""With fewer samples the ends are not known: errors and losses are skewed, and Student's interval is one of normal
numbers, or of means of enough others."""


def compute_paired_difference(
    first: NDArray[Any], second: NDArray[Any], *, is_relative: bool = False, confidence: float = 0.95
) -> Interval:
    """Return the mean of `second` − the mean of `first`, with both one-sided ends by Student's t of the differences.

    As a share of the mean of `first`, which varies with the samples, too, the ends are those of Fieller, Some problems
    in interval estimation, 1954: the shares b for which the mean of `second` − (1 + b) · `first` may just be zero. Of
    60 and of 300 skewed errors each end was wrong in 4 to 7 % of 1,000 draws, that of a BCa bootstrap in 5 to 9 %.

    Args:
        first, second: numbers of the same samples in the same order, (n,) each, n ≥ 1.
        is_relative: as a share of the absolute mean of `first`.
        confidence: of each end, one-sided, above 0.5.

    Returns:
        The difference; ends are NaN with fewer than ten samples or an infinite number, and infinite where the samples
        do not show that the mean of `first` is not zero.

    Raises:
        ValueError: no samples, other samples, NaN among them, or another confidence.
    """
    from scipy.stats import t

    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"the two must be of the same samples: {first.shape} and {second.shape}")
    if np.isnan(first).any() or np.isnan(second).any():
        raise ValueError("a difference needs samples without NaN")
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence of one end must be between 0.5 and 1, and is {confidence}")
    n = len(first)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return Interval(float(second.mean()) - float(first.mean()), math.nan, math.nan)
    differences, scale = second - first, np.ones(n)
    # Where no sample differs, the difference is none of any scale, also of 0.
    if is_relative and differences.any():
        scale = first * (1 if first.mean() >= 0 else -1)
    difference, size = float(differences.mean()), float(scale.mean())
    value = difference / size if size else math.copysign(math.inf, difference)
    if n < MIN_SAMPLES:
        return Interval(value, math.nan, math.nan)
    (variance, covariance), (_, size_variance) = np.cov(differences, scale) / n
    q2 = float(t.ppf(confidence, n - 1)) ** 2
    # The roots b of (difference − b · size)² = q² · var(difference − b · size).
    a, half, c = size**2 - q2 * size_variance, difference * size - q2 * covariance, difference**2 - q2 * variance
    if a <= 0:
        return Interval(value, -math.inf, math.inf)
    reach = math.sqrt(max(0.0, half * half - a * c))
    return Interval(value, float(half - reach) / a, float(half + reach) / a)
