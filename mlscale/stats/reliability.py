"""Calibration of a model: reliability diagrams, expected calibration error and temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 15  # as in Guo et al., On calibration of modern neural networks, 2017


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram: bins of about equal size, by confidence.

    Attributes:
        confidence: mean of each bin, (b,).
        accuracy: share of correct predictions in each bin, (b,).
        samples: number of samples in each bin, (b,).
        ece: expected calibration error: the mean distance of confidence and accuracy, over all samples.
    """

    confidence: Floats
    accuracy: Floats
    samples: NDArray[np.int64]
    ece: float


def assign_bins(confidence: NDArray[np.generic], bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each sample, int64 (n,): bins of equal mass with at least about ten samples, at most `bins`.

    None of these bins is nearly empty; such bins make the error of equally wide bins depend on their number
    (Nixon et al., Measuring calibration in deep learning, 2019). Samples of equal confidence are in one bin.
    """
    values = np.asarray(confidence, np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise ValueError("bins need the confidence of each sample, none of them NaN")
    count = max(1, min(bins, len(values) // 10))
    edges = np.unique(np.quantile(values, np.arange(1, count) / count, method="inverted_cdf"))
    return np.searchsorted(edges, values, "left").astype(np.int64)


def compute_reliability(confidence: NDArray[np.generic], correct: NDArray[np.generic], bins: int = BINS) -> Reliability:
    """Return the mean confidence and accuracy of each bin.

    Args:
        confidence: of each prediction, 0 to 1, (n,), n ≥ 1.
        correct: 1 or True where it was right, (n,).

    Raises:
        ValueError: no samples, a confidence of NaN, arrays of different length, or one that is neither right nor wrong.
    """
    if np.shape(confidence) != np.shape(correct) or not np.size(confidence):
        raise ValueError(
            f"confidence and correct must be of the same samples: {np.shape(confidence)}, {np.shape(correct)}"
        )
    if not np.isin(correct, (0, 1)).all():
        raise ValueError("correct must be true or false, 1 or 0")
    values, right, bin_index = (
        np.asarray(confidence, np.float64),
        np.asarray(correct, np.float64),
        assign_bins(confidence, bins),
    )
    samples = np.bincount(bin_index)
    used = samples > 0
    sums = [np.bincount(bin_index, column)[used] / samples[used] for column in (values, right)]
    samples = samples[used]
    ece = float((samples * abs(sums[0] - sums[1])).sum() / samples.sum())
    return Reliability(sums[0], sums[1], samples.astype(np.int64), ece)


def fit_temperature(logits: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Return the divisor of logits with the lowest negative log-likelihood, from 0.05 to 20: Guo et al., On calibration
    of modern neural networks, 2017. Above 1 the model is overconfident.

    Args:
        logits: (n, k), n ≥ 1.
        truth: class numbers, (n,).

    Raises:
        ValueError: no samples, logits that are not finite, or class numbers out of range.
    """
    from scipy.optimize import minimize_scalar

    values, right = np.asarray(logits, np.float64), np.asarray(truth, np.int64)
    if values.ndim != 2 or right.shape != (len(values),) or not len(values) or not np.isfinite(values).all():
        raise ValueError("a temperature needs finite logits of each sample, and its class")
    if right.min() < 0 or right.max() >= values.shape[1]:
        raise ValueError(f"classes must be from 0 to {values.shape[1] - 1}")
    # Over the logarithm, in which the search interval is symmetrical around a temperature of 1.
    optimum = minimize_scalar(
        lambda power: compute_nll(values / np.exp(power), right).mean(),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return float(np.exp(optimum.x))


def compute_nll(logits: Floats, truth: NDArray[np.int64]) -> Floats:
    """Return the negative log-likelihood of each sample, nats, (n,)."""
    # The largest logit is subtracted first: `exp` of a large logit would overflow.
    top = logits.max(-1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
    loss: Floats = total - logits[np.arange(len(truth)), truth]
    return loss
