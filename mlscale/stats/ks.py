"""The Kolmogorov–Smirnov test: two samples of numbers from one distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_EXACT_PAIRS = 10_000  # pairs of numbers up to which the exact p-value is computed at once


@dataclass(frozen=True)
class KsResult:
    """The result of the test.

    Attributes:
        distance: the largest difference of the two distribution functions, 0 to 1; the effect size.
        p: probability of such a distance, or a larger one, where both are from one distribution; too large where
            values are tied.
    """

    distance: float
    p: float


def run_ks_test(reference: NDArray[Any], sample: NDArray[Any]) -> KsResult:
    """Compare a sample with a reference, which is sorted already, by the Kolmogorov–Smirnov test.

    The p-value is that of Smirnov's distribution at the effective size mn/(m + n), as that of `scipy.stats.ks_2samp`
    with `method="asymp"`: Hodges, The significance probability of the Smirnov two-sample test, 1958. Of few numbers it
    is exact: three numbers against five would otherwise have p = 0.

    Args:
        reference: numbers (m,), sorted, m ≥ 1.
        sample: numbers (n,), in any order, n ≥ 1. NaN counts as larger than everything, as numpy sorts it.

    Raises:
        ValueError: a side is empty, or not a list of numbers.
    """
    from scipy.stats import ks_2samp, kstwo

    m, n = len(reference), len(sample)
    if np.ndim(reference) != 1 or np.ndim(sample) != 1 or not (m and n):
        raise ValueError("the test needs numbers on both sides")
    values = np.sort(sample)
    # The distance is reached at a value of the sample, or just before it.
    after = np.searchsorted(values, values, "right") / n - np.searchsorted(reference, values, "right") / m
    before = np.searchsorted(reference, values, "left") / m - np.searchsorted(values, values, "left") / n
    distance = float(np.clip(max(after.max(), before.max()), 0, 1))
    if m * n <= _MAX_EXACT_PAIRS and not (np.isnan(values[-1]) or np.isnan(reference[-1])):
        return KsResult(distance, float(ks_2samp(reference, sample, method="exact").pvalue))
    return KsResult(distance, float(np.clip(kstwo.sf(distance, max(1, np.round(m * n / (m + n)))), 0, 1)))
