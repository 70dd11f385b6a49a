"""Find classes that the window's labels contradict, of any task type: the champion knows them on the original data, and
is mostly wrong about them in the window, although it still knows the others there.

Unlike `relabelled_classes` this needs no challenger that has learned the labels: mixed with earlier data that says the
opposite, it may have learned neither.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_LOST, _RETAINED = 0.5, 0.8
"""The share of its score on the original data that a contradicted class has at most, and the other classes at least."""
_LEAST = 5
"""Samples of a class below which nothing is known of it."""
Scores = NDArray[np.float64]


def find_contradicted_classes(
    window: Mapping[str, Scores], original: Mapping[str, Scores], alpha: float
) -> tuple[str, ...]:
    """Return the names of the classes that the window contradicts; none where most classes got worse, as after a drift
    of the inputs.

    Args:
        window: the champion's scores of the samples of each class in the window, higher is better, (n,) each.
        original: the same on the original data.
        alpha: the probability of naming any by chance.
    """
    shares = _compute_retained_shares(window, original)
    lost = [name for name, share in shares.items() if share <= _LOST]
    others = [share for name, share in shares.items() if name not in lost]
    # With no other class there is nothing that shows that the inputs are what they were.
    if not others or np.median(others) < _RETAINED:
        return ()
    return tuple(name for name in lost if _is_worse(window[name], original[name], alpha / len(shares)))


def find_collapsed_classes(
    window: Mapping[str, Scores], original: Mapping[str, Scores], alpha: float
) -> tuple[str, ...]:
    """Return the names of all classes where the champion is mostly wrong about each of them in the window; none where
    it still knows one. What is right has changed for all, or the inputs have: the labels do not show which.

    Args:
        window: the champion's scores of the samples of each class in the window, higher is better, (n,) each.
        original: the same on the original data.
        alpha: the probability of naming any by chance.
    """
    shares = _compute_retained_shares(window, original)
    if not shares or max(shares.values()) > _LOST:
        return ()
    is_sure = all(_is_worse(window[name], original[name], alpha / len(shares)) for name in shares)
    return tuple(shares) if is_sure else ()


def _compute_retained_shares(window: Mapping[str, Scores], original: Mapping[str, Scores]) -> dict[str, float]:
    """Return the share of its score on the original data that each class has in the window, of those that have enough
    samples of both."""
    shares: dict[str, float] = {}
    for name, scores in window.items():
        before = original.get(name, np.zeros(0))
        if min(len(scores), len(before)) >= _LEAST and before.mean() > 0:
            shares[name] = float(scores.mean() / before.mean())
    return shares


def _is_worse(window: Scores, original: Scores, level: float) -> bool:
    from scipy.stats import mannwhitneyu

    return bool(mannwhitneyu(window, original, alternative="less").pvalue <= level)
