"""Correct many tests at once: for a false-discovery rate, or for any false rejection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Discoveries:
    """The corrected results of many tests.

    Attributes:
        q: of each test, the smallest false-discovery rate at which it is significant.
        is_significant: True for tests that are significant at the given rate.
    """

    q: tuple[float, ...]
    is_significant: tuple[bool, ...]


def apply_benjamini_hochberg(p: Sequence[float], fdr: float) -> Discoveries:
    """Correct p-values by Benjamini and Hochberg, Controlling the false discovery rate, 1995.

    Valid for independent and for positively dependent tests (Benjamini and Yekutieli, 2001). Where no test has an
    effect, the probability of any significant one is at most `fdr`.

    Args:
        p: p-values, 0 to 1.
        fdr: the largest expected share of false ones among the significant tests.

    Raises:
        ValueError: a p-value, or the rate, is not between 0 and 1; NaN is not.
    """
    from scipy.stats import false_discovery_control

    values = np.asarray(p, np.float64)  # whole numbers, too: scipy divides in place
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all() or not 0 <= fdr <= 1:
        raise ValueError("p-values and their rate of false discoveries must be between 0 and 1")
    if not len(values):
        return Discoveries((), ())
    q = tuple(float(value) for value in false_discovery_control(values, method="bh"))
    return Discoveries(q, tuple(value <= fdr for value in q))


def reject_holm(p: Sequence[float] | NDArray[np.float64], alpha: float) -> NDArray[np.bool_]:
    """Return which hypotheses are rejected, so that a true one is among them with a probability of at most `alpha`,
    however the tests depend on each other: Holm, A simple sequentially rejective multiple test procedure, 1979.

    Args:
        p: p-values, 0 to 1, (n,).
        alpha: the probability of any false rejection.

    Raises:
        ValueError: a p-value, or the level, is not between 0 and 1; NaN is not.
    """
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all() or not 0 <= alpha <= 1:
        raise ValueError("p-values and their level must be between 0 and 1")
    order = np.argsort(values, kind="stable")
    # The smallest is compared with alpha / n, the next with alpha / (n - 1); the first that fails ends it.
    passes = values[order] * np.arange(len(values), 0, -1) <= alpha
    rejected = np.zeros(len(values), np.bool_)
    rejected[order] = np.logical_and.accumulate(passes)
    return rejected
