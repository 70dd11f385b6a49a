"""The integrated autocorrelation time: how many dependent samples are worth an independent one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_LAGS, _BLOCK, _MIN_BLOCKS = 32, 8, 16
_SEGMENTS, _MIN_SEGMENT = 4, 100
_STANDARD_ERRORS = 2.0
_SHORT = 50.0  # a series of fewer correlation times is short: the model-free estimate is too small then


def estimate_correlation_time(scores: NDArray[np.float64]) -> float:
    """Return the integrated autocorrelation time τ of a series, at least 1: n samples are worth n/τ independent ones.

    By the initial monotone sequence of Geyer (Practical Markov chain Monte Carlo, Statistical Science 7, 1992), which
    assumes no model. Subtracting the mean hides most of the autocorrelation of a series that is only a few τ long:
    there, the larger one of that and of the AR(1) model's (1 + ρ)/(1 − ρ) is taken, with the bias of ρ removed
    (Kendall, Note on bias in the estimation of autocorrelation, Biometrika 41, 1954). Two standard errors are added,
    about √(τ/n) each (Sokal, Monte Carlo methods in statistical mechanics, 1997), and none where τ is 1.

    The series is centred by quarters: a step in the middle of it, which is what drift looks like, is not taken for
    a long memory. A memory longer than that can't be distinguished from drift.

    Args:
        scores: in the order of time, (n,); ranks rather than values, so that outliers do not count more than others.
    """
    n = len(scores)
    segments = _SEGMENTS if n >= _SEGMENTS * _MIN_SEGMENT else 1
    length = n // segments
    centred = np.array(scores[n - segments * length :], np.float64)
    if n:
        by_segment = centred.reshape(segments, length)
        by_segment -= by_segment.mean(1, keepdims=True)
    variance = float(centred @ centred) / max(1, len(centred))
    # A constant series has no autocorrelation that could be estimated.
    if n < 4 or not variance > 0 or not math.isfinite(variance):
        return 1.0
    time = max(1.0, _sum_initial_sequence(centred, variance))
    if length < _SHORT * time:
        time = max(time, _compute_first_order_time(centred, variance, length))
    time *= 1 + _STANDARD_ERRORS * math.sqrt((time - 1) / n)
    return min(time, float(n))


def _sum_initial_sequence(centred: NDArray[np.float64], variance: float) -> float:
    """Return Geyer's estimate: sums of neighbouring autocovariances, as long as they are positive and fall."""
    n, total, previous = len(centred), 0.0, math.inf
    for lag in range(0, min(_LAGS, n - 2), 2):
        even = variance if not lag else _compute_autocovariance(centred, lag)
        pair = min(even + _compute_autocovariance(centred, lag + 1), previous)
        if pair <= 0:
            return 2 * total / variance - 1
        total, previous = total + pair, pair
    if n // _BLOCK < _MIN_BLOCKS:
        return 2 * total / variance - 1
    # Longer than the lags that were looked at. Means of blocks have the same variance of their mean with an eighth
    # of the lags (Flyvbjerg and Petersen, Error estimates on averages of correlated data, 1989).
    blocks = centred[: n // _BLOCK * _BLOCK].reshape(-1, _BLOCK).mean(1)
    # The last values are left out where the blocks do not hold them all.
    blocks -= blocks.mean()
    between = float(blocks @ blocks) / len(blocks)
    return _BLOCK * between / variance * _sum_initial_sequence(blocks, between) if between > 0 else 1.0


def _compute_first_order_time(centred: NDArray[np.float64], variance: float, length: int) -> float:
    """Return the AR(1) model's time of a series that is centred by segments of this length."""
    first = _compute_autocovariance(centred, 1) / variance
    # The last term keeps a random walk finite: its time is about that of a segment.
    first = min(first + (1 + 3 * max(0.0, first)) / length, 1 - 1 / length)
    return (1 + first) / (1 - first)


def _compute_autocovariance(centred: NDArray[np.float64], lag: int) -> float:
    return float(centred[:-lag] @ centred[lag:]) / len(centred)
