"""The ratio of two measured quantities, from rounds in which both were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlscale.stats.intervals import Interval, check_confidence


def compute_ratio_interval(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the geometric mean of first / second over paired rounds, with Student's interval of the mean logarithm.

    Both numbers of a round had the same load of the machine; in logarithms, 2 and 1/2 are equally far from 1.

    Args:
        first, second: positive numbers, one of each for every round, two rounds at least.
        confidence: of the interval, two-sided.

    Raises:
        ValueError: fewer than two rounds, sides of different length, or numbers that are not positive and finite, or
            the confidence is not between 0 and 1.
    """
    from scipy.stats import t

    sides = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if sides[0].ndim != 1 or sides[0].shape != sides[1].shape or len(sides[0]) < 2:
        raise ValueError("a ratio needs two rounds of positive numbers at least")
    if not all((np.isfinite(side) & (side > 0)).all() for side in sides):
        raise ValueError("a ratio needs positive numbers, none of them infinite or NaN")
    check_confidence(confidence)
    # Paired in each round: the load of the machine, which both had, cancels.
    logs = np.log(sides[0]) - np.log(sides[1])
    mean, error = float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(len(logs))
    reach = float(t.ppf((1 + confidence) / 2, len(logs) - 1)) * error
    return Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))
