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


def run_chi2_test(reference: NDArray[Any], counts: NDArray[Any]) -> Chi2Result:
    """Compare class counts with those of a reference, which is a sample, too, by Pearson's χ² test.

    The proportions of a reference of 360 samples are uncertain themselves: a test that takes them as true would find
    a difference for any large window. Classes are pooled, the rarest first, until each cell can expect five.

    Args:
        reference, counts: the number of samples of each class, (k,) each; fractions where they are scaled to an
            effective sample size.

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
    cells = _merge_rare_classes(both)
    if cells.shape[1] < 2:
        return Chi2Result(distance, 1.0, cells.shape[1])
    expected = cells.sum(1, keepdims=True) * cells.sum(0) / cells.sum()
    statistic = ((cells - expected) ** 2 / expected).sum()
    return Chi2Result(distance, float(chdtrc(cells.shape[1] - 1, statistic)), cells.shape[1])


def _merge_rare_classes(both: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the table (2, k) with its rarest columns pooled until the smaller side expects five in each.

    Only the columns' totals decide: they do not depend on the difference of the two sides.
    """
    table = both[:, np.argsort(both.sum(0), kind="stable")[::-1]]
    share = both.sum(1).min() / both.sum()
    while table.shape[1] > 1 and table.sum(0).min() * share < _MIN_EXPECTED:
        table = np.concatenate([table[:, :-2], table[:, -2:].sum(1, keepdims=True)], 1)
        table = table[:, np.argsort(table.sum(0), kind="stable")[::-1]]
    return table
