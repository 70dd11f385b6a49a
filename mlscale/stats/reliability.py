"""Calibration of a model: reliability diagrams, expected calibration error and temperature scaling.

Calibration error: the distance of a model's confidence from its accuracy, debiased and with an interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.intervals import Interval

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


Counts = NDArray[np.int64]
Gaps = Callable[[float], Floats]
"""From a size to the accuracy of each bin, (b,): the larger the size, the further from the confidence."""

DRAWS = 600
_STEPS = 16  # bisections of the search: far more precise than the draws
_ROUNDING = 1e-6  # a softmax in single precision may exceed 1 by so much


@dataclass(frozen=True)
class CalibrationError:
    """The expected calibration error of a set of predictions.

    Attributes:
        binned: the mean distance of confidence and accuracy over the bins, as papers report it. Noise alone makes it
            larger than zero: it is biased upwards.
        if_calibrated: the expected value of `binned` for a perfectly calibrated model with these confidences.
        debiased: the error whose expected `binned` is the observed one, with its interval; 0 where `binned` is below
            `if_calibrated`.
    """

    binned: float
    if_calibrated: float
    debiased: Interval


def estimate_calibration_error(
    confidence: NDArray[np.generic],
    correct: NDArray[np.generic],
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> CalibrationError:
    """Estimate the calibration error over bins of equal mass, with an interval that can include 0.

    A bootstrap can't do this: each draw adds the noise of the samples once more, so that its interval lies above the
    error. Here the observed error is compared with what models of known errors would give with as many samples: the
    interval has those errors that do not make the observed one unlikely (an inverted test, as Bröcker and Smith's
    consistency bars, Increasing the reliability of reliability diagrams, 2007, are for an error of zero).

    The true error of each bin is unknown. The estimate assumes the observed gaps, each less the same number
    of its standard errors: few bins may hold all of the error, and noise the rest. The lower end is the smallest under
    that and under gaps in proportion to the observed ones; the upper end the largest under the latter and two others:
    all bins too sure, or all apart by the same amount.

    Args:
        confidence: of each prediction, 0 to 1, (n,), n ≥ 1.
        correct: 1 or True where it was right, (n,).
        level: confidence level of the interval, two-sided.
        draws: simulated sets of samples for each candidate error.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: no samples, a confidence that is not between 0 and 1, or arrays of different length.
    """
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if sure.ndim != 1 or sure.shape != right.shape or not len(sure):
        raise ValueError(f"confidence and correct must be of the same samples: {sure.shape} and {right.shape}")
    if not ((sure >= -_ROUNDING) & (sure <= 1 + _ROUNDING)).all() or not np.isin(right, (0, 1)).all():
        raise ValueError("confidence must be between 0 and 1, and correct 0 or 1")
    bins = _Bins.build_bins(np.clip(sure, 0, 1), right)
    seen = bins.measure_distance(bins.accuracy)
    tail = (1 - level) / 2

    def simulate_errors(accuracy: Floats) -> Floats:
        # The same random numbers for every candidate: the bisection then compares errors, not their noise.
        hits = np.random.default_rng(seed).binomial(bins.samples, accuracy, (draws, len(bins.samples)))
        return bins.measure_distance(hits / bins.samples)

    def find_largest_error(gaps: Gaps, fits: Callable[[Floats], bool]) -> float:
        """Return the largest error of this pattern at which the simulated errors fit; 0 where none does."""
        low, high = 0.0, 1.0
        if not fits(simulate_errors(gaps(0.0))):
            return 0.0
        if fits(simulate_errors(gaps(1.0))):
            return float(bins.measure_distance(gaps(1.0)))
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(simulate_errors(gaps(middle))) else (low, middle)
        return float(bins.measure_distance(gaps(low)))

    # The same bins give slightly different sums: without it, an equal distance could count as a larger one.
    tolerance = 1e-12
    calibrated = simulate_errors(bins.confidence)
    value = find_largest_error(bins.shrink_gaps, lambda drawn: drawn.mean() <= seen)
    low = min(
        find_largest_error(gaps, lambda drawn: (drawn >= seen - tolerance).mean() < tail)
        for gaps in (bins.shrink_gaps, bins.scale_gaps)
    )
    high = max(
        find_largest_error(gaps, lambda drawn: (drawn <= seen + tolerance).mean() >= tail)
        for gaps in (bins.scale_gaps, bins.reduce_accuracies, bins.spread_gaps_evenly)
    )
    interval = Interval(value, min(low, value), max(high, value))
    return CalibrationError(float(seen), float(calibrated.mean()), interval)


@dataclass(frozen=True, eq=False)
class _Bins:
    confidence: Floats
    accuracy: Floats
    samples: Counts

    @staticmethod
    def build_bins(sure: Floats, right: Floats) -> _Bins:
        bin_index = assign_bins(sure)
        samples = np.bincount(bin_index)
        used = samples > 0
        means = [np.bincount(bin_index, values)[used] / samples[used] for values in (sure, right)]
        return _Bins(means[0].clip(0, 1), means[1], samples[used])

    def measure_distance(self, accuracy: Floats) -> Floats:
        """Return the mean distance of these accuracies, (…, b), from the confidence, (…)."""
        distance: Floats = abs(accuracy - self.confidence) @ (self.samples / self.samples.sum())
        return distance

    # Patterns of gaps. At size 1 the first is the observed one, the others are as large as accuracies allow.

    def shrink_gaps(self, size: float) -> Floats:
        gaps = self.accuracy - self.confidence
        # The standard error of a bin's accuracy; not zero for a confidence of 0 or 1, as it is a divisor.
        error = np.sqrt(np.maximum(self.confidence * (1 - self.confidence), 1e-12) / self.samples)
        most = (abs(gaps) / error).max()
        accuracy: Floats = self.confidence + np.sign(gaps) * np.maximum(0, abs(gaps) - (1 - size) * most * error)
        return accuracy

    def scale_gaps(self, size: float) -> Floats:
        gaps = self.accuracy - self.confidence
        most = abs(gaps).max()
        accuracy: Floats = np.clip(self.confidence + size * (gaps / most if most else gaps), 0, 1)
        return accuracy

    def reduce_accuracies(self, size: float) -> Floats:
        accuracy: Floats = np.clip(self.confidence - size, 0, 1)
        return accuracy

    def spread_gaps_evenly(self, size: float) -> Floats:
        away = np.where(self.accuracy >= self.confidence, 1.0, -1.0)
        accuracy: Floats = np.clip(self.confidence + away * size, 0, 1)
        return accuracy
