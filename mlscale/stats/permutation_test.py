"""Tests of two models on the same samples, for any metric: by permutation, and with the skewness of the differences."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.bootstrap import Statistic, group_rows

Floats = NDArray[np.float64]
DRAWS = 2000
_MAX_BATCH_NUMBERS = 2_000_000  # numbers in the matrix of one batch of draws, 16 MB


def run_permutation_test(
    first: NDArray[np.generic], second: NDArray[np.generic], statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> Floats:
    """Return the two-sided p-value of the difference of each metric, (m,), if both models were exchangeable.

    If the models do not differ, chance decides which of them gave which of the two results on a sample. So results are
    swapped, sample by sample, and the p-value is the share of differences as large as the observed one. Few samples are
    swapped in every possible way: one sample gives p = 1, five give 0.0625 at best.

    Args:
        first, second: the values to sum of each sample, (n, c) each, the same samples in the same order.
        statistic: from sums, (b, c), to metrics, (b, m).
        draws: the number of random swaps, if there are more ways than that; the observed one is counted in addition.
        seed: the same seed gives the same p-values.

    Raises:
        ValueError: no samples, other samples, or NaN.
    """
    first_rows, second_rows = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first_rows.ndim != 2 or first_rows.shape != second_rows.shape or not len(first_rows):
        raise ValueError(f"the two must be of the same samples: {first_rows.shape} and {second_rows.shape}")
    if np.isnan(first_rows).any() or np.isnan(second_rows).any():
        raise ValueError("the test needs rows without NaN")
    rng = np.random.default_rng(seed)
    together = np.concatenate([first_rows, second_rows], 1)
    together = group_rows(together, np.ones(len(together), np.int64), rng)[0]  # groups are exchangeable, too
    first_rows, second_rows = np.split(together, 2, axis=1)
    n = len(first_rows)
    # Below 63: the ways are numbered by 64-bit integers, whose bits are the swaps.
    exact = n < 63 and 2**n <= draws
    total = 2**n if exact else draws
    extreme: NDArray[np.int64] = np.zeros(1, np.int64)
    size = max(1, _MAX_BATCH_NUMBERS // n)
    with np.errstate(all="ignore"):  # an infinite loss has no difference, and no p-value
        sums, gap = (first_rows.sum(0)[None], second_rows.sum(0)[None]), second_rows - first_rows
        metrics = [statistic(side_sums)[0] for side_sums in sums]
        seen = abs(metrics[0] - metrics[1])
        # Sums in another order differ by rounding: a difference equal to the observed one must count as as large.
        tolerance = 1e-9 * np.maximum(*map(abs, metrics))
        for start in range(0, total, size):
            number = np.arange(start, min(start + size, total))
            swaps = number[:, None] >> np.arange(n) & 1 if exact else rng.integers(0, 2, (len(number), n))
            moved = swaps.astype(np.float64) @ gap
            differences = abs(statistic(sums[0] + moved) - statistic(sums[1] - moved))
            extreme = extreme + (differences >= seen - tolerance).sum(0)
    # All ways include the observed one; random ones do not, and with it p is never 0.
    p: Floats = extreme / total if exact else (extreme + 1) / (total + 1)
    return np.where(np.isfinite(seen), p, np.nan)


def compute_skewed_p(
    first: NDArray[np.generic], second: NDArray[np.generic], statistic: Statistic, *, seed: int = 0
) -> Floats:
    """Return the two-sided p-value of the difference of each metric, (m,), where rare values may be large.

    A permutation test assumes that the two results of a sample could be exchanged. Two models that are equally good,
    one of them with rare large errors, are not exchangeable: where the samples have few of these, that model looks
    better. Here the difference is tested by Student's t of its jackknife pseudo-values, corrected for their skewness
    (Hall, On the removal of skewness by transformation, Journal of the Royal Statistical Society B 54, 1992), with the
    sample that speaks most against the better model counted three times: rarer ones may not be among the samples.

    Args:
        first, second: the values to sum of each sample, (n, c) each, the same samples in the same order.
        statistic: from sums, (b, c), to metrics, (b, m).
        seed: of the groups of more than 5,000 samples.
    """
    from scipy.stats import norm

    together = np.concatenate([np.asarray(first, np.float64), np.asarray(second, np.float64)], 1)
    together = group_rows(together, np.ones(len(together), np.int64), np.random.default_rng(seed))[0]
    n, width = len(together), together.shape[1] // 2
    sums = together.sum(0)
    with np.errstate(all="ignore"):  # no difference at all, or an infinite one
        whole, left_out = (statistic(s[:, :width]) - statistic(s[:, width:]) for s in (sums[None], sums - together))
        values = (n * whole - (n - 1) * left_out) * np.sign(whole)
        values = np.concatenate([values, *[values.min(0, keepdims=True)] * 2])
        mean, spread = values.mean(0), values.std(0)
        t, skew = mean / spread * math.sqrt(n), (((values - mean) / spread) ** 3).mean(0) / math.sqrt(n + 2)
        p: Floats = np.minimum(1, 2 * norm.sf(t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6))
    # Without a spread every sample shows the same difference, or none.
    return np.where(spread == 0, mean <= 0, p)
