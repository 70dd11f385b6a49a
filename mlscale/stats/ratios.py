"""How many times one thing takes of another, from rounds in which both were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mlscale.stats.intervals import Interval


def ratio(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval:
    """The geometric mean of first / second over paired rounds, with Student's interval of the mean logarithm.

    Pairs share what the machine was doing then; by logarithms twice as long and half as long are equally far from 1.

    Args:
        first, second: positive numbers, one of each for every round, two rounds at least.
        confidence: that the true ratio lies within, two-sided.
    """
    from scipy.stats import t

    logs = np.log(np.asarray(first, np.float64) / np.asarray(second, np.float64))
    if logs.ndim != 1 or len(logs) < 2 or not np.isfinite(logs).all():
        raise ValueError("a ratio needs two rounds of positive numbers at least")
    mean, error = float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(len(logs))
    reach = float(t.ppf((1 + confidence) / 2, len(logs) - 1)) * error
    return Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))
