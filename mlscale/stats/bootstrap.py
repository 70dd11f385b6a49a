"""Bootstrap confidence intervals of metrics that are functions of sums over the samples, for many draws at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.intervals import Interval

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From sums over the samples, (b, c), to metrics, (b, m); NaN where a metric is not defined for these samples."""

DRAWS = 2000
MIN_SAMPLES = 10
"""With fewer samples there is no interval: with so few values it would be too narrow, and would cover the truth far
less often than its confidence."""
_MAX_ROWS = 5000
_MAX_BATCH_NUMBERS = 2_000_000  # numbers in the matrix of one batch of draws, 16 MB


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Metrics, each with its confidence interval.

    Attributes:
        value: of the given samples, (m,).
        low, high: the ends of the intervals, (m,); NaN where the samples are too few, or all draws are equal.
    """

    value: Floats
    low: Floats
    high: Floats

    def __getitem__(self, index: int) -> Interval:
        return Interval(float(self.value[index]), float(self.low[index]), float(self.high[index]))


def bootstrap_intervals(
    rows: NDArray[np.generic],
    statistic: Statistic,
    *,
    counts: NDArray[np.generic] | None = None,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Bootstrap:
    """Return BCa intervals (Efron, Better bootstrap confidence intervals, 1987) of metrics that are functions of sums.

    Such metrics are means, F1, R², the calibration error in fixed bins and an IoU: a draw is then one row of a matrix
    product, and the jackknife that BCa needs is a subtraction. Equal samples are given once, with their count. More
    than 5,000 rows are first combined at random into 5,000 groups of one size, whose sums are drawn: this has the same
    variance in expectation (the groups are independent), and a cost that does not grow. Where BCa's correction is not
    defined (all draws on one side) the percentile interval is used. Both are widened for few samples by
    Student's quantile (Hesterberg, What teachers should know about the bootstrap, 2015).

    Args:
        rows: the values to sum, of each sample, (n, c); n ≥ 1.
        statistic: from sums to metrics, for many draws at once.
        counts: the number of equal samples of each row, (n,); one each by default.
        confidence: of the intervals, two-sided.
        draws: the number of resampled sets.
        seed: the same seed gives the same intervals.

    Raises:
        ValueError: no rows, rows with NaN, counts that are negative or do not fit, or a confidence outside
            0 to 1.
    """
    rng = np.random.default_rng(seed)
    values = np.asarray(rows, np.float64)
    weights = np.ones(len(values), np.int64) if counts is None else np.asarray(counts, np.int64)
    if values.ndim != 2 or weights.shape != (len(values),) or not weights.sum() or weights.min() < 0:
        raise ValueError(f"the bootstrap needs rows of at least one sample, and this is {values.shape}")
    if np.isnan(values).any():
        raise ValueError("the bootstrap needs rows without NaN")
    if not 0 < confidence < 1 or draws < 1:
        raise ValueError(f"confidence must be between 0 and 1, and draws positive: {confidence}, {draws}")
    samples = int(weights.sum())
    whole = weights @ values
    values, weights = group_rows(values, weights, rng)
    estimates = statistic(whole[None])[0]
    if samples < MIN_SAMPLES:
        unknown = np.full(estimates.shape, np.nan)
        return Bootstrap(estimates, unknown, unknown)
    drawn = _draw_statistics(values, weights, statistic, draws, rng)
    with np.errstate(all="ignore"):
        # All jackknife values at once: the sums without one row are the sum of all less that row.
        left_out = statistic(whole - values)
        low, high = _compute_bca_intervals(
            estimates, drawn, left_out, weights, _adjust_tail((1 - confidence) / 2, int(weights.sum()))
        )
    return Bootstrap(estimates, low, high)


def _adjust_tail(tail: float, n: int) -> float:
    """Return the share of draws beyond each end that makes the interval of a mean as wide as Student's."""
    from scipy.stats import norm, t

    return float(norm.cdf(t.ppf(tail, n - 1) * np.sqrt(n / (n - 1))))


def group_rows(
    values: Floats, weights: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Floats, NDArray[np.int64]]:
    """Return the sums of random groups of about equal size, with weight 1 each; up to 5,000 rows are not changed."""
    if len(values) <= _MAX_ROWS:
        return values, weights
    order = rng.permutation(len(values))
    bounds = np.linspace(0, len(values), _MAX_ROWS + 1).astype(np.int64)[:-1]
    return np.add.reduceat(values[order] * weights[order, None], bounds, axis=0), np.ones(_MAX_ROWS, np.int64)


def _draw_statistics(
    values: Floats, weights: NDArray[np.int64], statistic: Statistic, draws: int, rng: np.random.Generator
) -> Floats:
    """Return the metrics of each draw, (draws, m)."""
    n, total = len(values), int(weights.sum())
    uniform = bool((weights == 1).all())  # their sum alone may be n where some rows count twice and others not at all
    parts = []
    size = max(1, _MAX_BATCH_NUMBERS // n)
    for start in range(0, draws, size):
        count = min(size, draws - start)
        if uniform:
            picked = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
            times = np.bincount(picked.ravel(), minlength=count * n).reshape(count, n)
        else:
            times = rng.multinomial(total, weights / total, size=count)
        with np.errstate(all="ignore"):
            parts.append(statistic(times.astype(np.float64) @ values))
    return np.concatenate(parts)


def _compute_bca_intervals(
    estimates: Floats, drawn: Floats, left_out: Floats, weights: NDArray[np.int64], tail: float
) -> tuple[Floats, Floats]:
    from scipy.stats import norm

    lows, highs = [], []
    for index, value in enumerate(estimates):
        values = drawn[:, index]
        values = np.sort(values[np.isfinite(values)])
        # All draws are equal, up to rounding: they hold no information on how certain the value is.
        if not len(values) or not np.isfinite(value) or values[-1] - values[0] <= 1e-12 * abs(value):
            lows.append(np.nan)
            highs.append(np.nan)
            continue
        # Draws equal to the value count half: metrics of few samples have many ties.
        below = (np.searchsorted(values, value, "left") + np.searchsorted(values, value, "right")) / 2 / len(values)
        shares = np.array([tail, 1 - tail])
        # At 0 or 1 the bias is infinite: then the percentile interval is left.
        if 0 < below < 1:
            bias, skew = norm.ppf(below), _compute_acceleration(left_out[:, index], weights)
            ends = bias + norm.ppf(shares)
            shares = norm.cdf(bias + ends / (1 - skew * ends))
        low, high = np.quantile(values, np.clip(shares, 0, 1))
        lows.append(low)
        highs.append(high)
    return np.array(lows, np.float64), np.array(highs, np.float64)


def _compute_acceleration(left_out: Floats, weights: NDArray[np.int64]) -> float:
    """Return the acceleration of BCa: a sixth of the skewness of the jackknife's values."""
    known = np.isfinite(left_out)
    values, times = left_out[known], weights[known]
    if not times.sum():
        return 0.0
    away = (times @ values) / times.sum() - values
    spread = float(times @ away**2)
    return float(times @ away**3) / (6 * spread**1.5) if spread > 1e-300 else 0.0
