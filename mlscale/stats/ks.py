"""The Kolmogorov–Smirnov test: two samples of numbers from one distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_EXACT_PAIRS = 10_000
"""Pairs of numbers up to which the exact p-value is computed at once."""


def compute_ks_p(distance: ArrayLike, m: ArrayLike, n: ArrayLike) -> NDArray[np.float64]:
    """Return the chance of such distances of two distribution functions, or larger ones, by Kolmogorov's distribution.

    At the effective size mn/(m + n) (Hodges, The significance probability of the Smirnov two-sample test, 1958), with
    Vrbik's correction for small ones (Small-sample corrections to Kolmogorov–Smirnov test statistic, 2018). Too large
    where values are tied.

    Args:
        distance: 0 to 1, broadcast with m and n.
        m, n: sizes of the samples, or their effective sizes; fractions are fine.
    """
    from scipy.special import kolmogorov

    distance, m, n = (np.asarray(side, np.float64) for side in (distance, m, n))
    size = m * n / (m + n)
    root = np.sqrt(size)
    scaled = root * distance
    p: NDArray[np.float64] = kolmogorov(np.maximum(0, scaled + 1 / (6 * root) + (scaled - 1) / (4 * size)))
    return p


def compute_exact_ks_p(reference: NDArray[np.float64], sample: NDArray[np.float64]) -> float:
    """Return the exact chance of the distance of two small samples of finite numbers, or of a larger one.

    Raises:
        ValueError: a side is empty.
    """
    from scipy.stats import ks_2samp

    if not (len(reference) and len(sample)):
        raise ValueError("the test needs numbers on both sides")
    return float(ks_2samp(reference, sample, method="exact").pvalue)
