"""Many tests at once: which of them found something, when a stated share of the finds may be false."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Discoveries:
    """What is left of many p-values.

    Attributes:
        q: of each test, the smallest false-discovery rate at which it counts as a find.
        found: whether it does at the rate that was asked for.
    """

    q: tuple[float, ...]
    found: tuple[bool, ...]


def benjamini_hochberg(p: Sequence[float], fdr: float) -> Discoveries:
    """Benjamini and Hochberg, Controlling the false discovery rate, 1995.

    Holds for independent tests and for those that rise and fall together (Benjamini and Yekutieli, 2001). Where nothing
    is to be found at all, the chance of any find is at most `fdr`.

    Args:
        p: p-values, 0 to 1.
        fdr: the share of false ones among the finds, at most, on average.

    Raises:
        ValueError: a p-value, or the rate, is not between 0 and 1; NaN is not.
    """
    from scipy.stats import false_discovery_control

    values = np.asarray(p, np.float64)  # whole numbers, too: scipy divides in place
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all() or not 0 <= fdr <= 1:
        raise ValueError("p-values and their rate of false discoveries must be between 0 and 1")
    if not len(values):
        return Discoveries((), ())
    q = tuple(float(each) for each in false_discovery_control(values, method="bh"))
    return Discoveries(q, tuple(each <= fdr for each in q))
