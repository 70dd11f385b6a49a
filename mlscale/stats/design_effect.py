"""The design effect of groups: how many samples of the same users are worth one of a user of its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.autocorrelation import estimate_correlation_time

_STANDARD_ERRORS = 2.0


def estimate_group_time(scores: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Return the design effect of groups, at least 1: n samples are worth n over it.

    1 + ρ(Σ nᵢ²/n − 1) of groups of nᵢ samples (Kish, Survey sampling, 1965), where the intra-class correlation ρ is
    that of the analysis of variance. Two standard errors are added: of twenty users, ρ is known to a third.

    Args:
        scores: (n,), finite.
        groups: the number of each sample's group, from 0 on, (n,).
    """
    every = np.bincount(groups)
    sizes = every[every > 0].astype(np.float64)
    n, count = len(scores), len(sizes)
    centred = scores - scores.mean() if n else scores
    total = float(centred @ centred)
    if count == n or not total > 0:
        return 1.0
    # One group does not show how much groups differ.
    if count == 1:
        return float(n)
    between = float((np.bincount(groups, centred)[every > 0] ** 2 / sizes).sum())
    within, squares = (total - between) / (n - count), float(sizes @ sizes)
    variance = max(0.0, between / (count - 1) - within) * (count - 1) / (n - squares / n)
    if not variance:
        return 1.0
    effect = variance / (variance + within) * (squares / n - 1)
    # As many groups of one size are known as well.
    return min(1 + effect * (1 + _STANDARD_ERRORS * math.sqrt(2 * squares) / n), float(n))


def number_groups(names: NDArray[Any] | None) -> NDArray[np.int64] | None:
    """Return the number of each sample's group; None if all are of one, or of none.

    Args:
        names: of the groups, (n,); a sample without one, None, is a group of its own.
    """
    numbers: dict[object, int] = {}
    named = (at if name is None else name for at, name in enumerate([] if names is None else names.tolist()))
    every = np.array([numbers.setdefault(name, len(numbers)) for name in named], np.int64)
    return every if len(numbers) > 1 else None


def estimate_dependence(scores: NDArray[np.float64], groups: NDArray[np.int64] | None) -> float:
    """Return how many samples in the order of time are worth an independent one: by their memory or by their groups,
    whichever is more."""
    time = estimate_correlation_time(scores)
    return time if groups is None else max(time, estimate_group_time(scores, groups))
