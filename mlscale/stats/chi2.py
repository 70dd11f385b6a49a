"""Pearson's chi-squared test of homogeneity: two samples of classes from one distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MIN_EXPECTED = 5.0  # Cochran, Some methods for strengthening the common χ² tests, 1954


@dataclass(frozen=True)
class Chi2Result:
    """The result of the test.

    Attributes:
        distance: the share of samples that would have to change their class to make the two equal (total variation),
            0 to 1; the effect size.
        p: probability of such differences, or larger ones, where both are from one distribution.
        cells: the number of compared classes, rare ones pooled; with one, nothing can be compared, and p is 1.
    """

    distance: float
    p: float
    cells: int


def run_chi2_test(reference: NDArray[Any], counts: NDArray[Any], times: tuple[float, float] = (1.0, 1.0)) -> Chi2Result:
    """Compare class counts with those of a reference, which is a sample, too, by Pearson's χ² test.

    The proportions of a reference of 360 samples are uncertain themselves: a test that takes them as true would find
    a difference for any large window. Rare classes are pooled until each cell can expect five. What is pooled depends
    on the sums of both sides and on the order of the classes alone: given those, nothing is known of the difference,
    so the test holds for any number of classes.

    Args:
        reference, counts: the number of samples of each class, (k,) each; the order of the classes must have nothing
            to do with the counts of one side. A class that one side lacks has 0 there.
        times: of each side, how many dependent samples are worth an independent one; the statistic is divided by
            their effect on the variance of a difference (Rao and Scott, The analysis of categorical data from complex
            sample surveys, 1981).

    Raises:
        ValueError: a side has no counts, or the two differ in length, or a count is negative, infinite or NaN.
    """
    from scipy.special import chdtrc

    both = np.stack([np.asarray(reference, np.float64), np.asarray(counts, np.float64)])
    totals = both.sum(1, keepdims=True) if both.ndim == 2 else np.zeros(1)
    if both.ndim != 2 or not np.isfinite(both).all() or (both < 0).any():
        raise ValueError("the test needs counts, none of them negative, infinite or NaN")
    if not totals.all():
        raise ValueError("the test needs counts on both sides")
    distance = float(abs(both[0] / totals[0] - both[1] / totals[1]).sum() / 2)
    variances = np.array(times) / totals[:, 0]
    cells = _pool_rare_classes(both, _MIN_EXPECTED * both.sum() * float(variances.max()))
    if cells.shape[1] < 2:
        return Chi2Result(distance, 1.0, cells.shape[1])
    expected = totals * cells.sum(0) / cells.sum()
    effect = variances.sum() / (1 / totals).sum()
    statistic = ((cells - expected) ** 2 / expected).sum() / effect
    return Chi2Result(distance, float(chdtrc(cells.shape[1] - 1, statistic)), cells.shape[1])


def _pool_rare_classes(both: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return the table (2, k) with the classes of less than `least` samples in cells of about as many."""
    both = both[:, both.any(0)]
    both = both[:, np.argsort(-both.sum(0), kind="stable")]
    sums = both.sum(0)
    large = int((sums >= least).sum())
    rare = sums[large:]
    count = max(1, int(rare.sum() / least))
    # Too few for a cell of their own: with the rarest of the others.
    first = max(0, large - 1) if rare.sum() < least else large
    pooled = first + np.minimum((np.cumsum(rare) - rare) * count / max(rare.sum(), 1), count - 1).astype(np.int64)
    cell = np.concatenate([np.arange(large), pooled])
    return np.stack([np.bincount(cell, side) for side in both])
