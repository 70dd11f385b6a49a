"""Tests of a column of numbers against its sketch: distribution, tails, and the quality of the data.

A column costs one sort and one search of the sketch's values in it: 10,000 values take a quarter of a millisecond.

The share of missing values, compared with the reference's: more of them are a problem of the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift.column_drift import STILL, Column, ColumnDrift
from mlscale.reference.column_sketch import ColumnSketch, NumberSketch
from mlscale.stats.design_effect import estimate_dependence, estimate_group_time
from mlscale.stats.exceedances import compute_exceedance_p
from mlscale.stats.ks import MAX_EXACT_PAIRS, compute_exact_ks_p, compute_ks_p

# The share of a column's false-discovery budget that each test may use; together 1, so that the smallest of the
# quotients p / share is a valid p-value of the column, whatever the dependence (weighted Bonferroni).
_SHARES = {
    "function": 0.29,
    "location": 0.34,
    "spread": 0.15,
    "tails": 0.1,
    "missing": 0.04,
    "range": 0.03,
    "constant": 0.02,
    "unit": 0.01,
}  # and 0.02 in `piece_tests`
_TAIL, _CLIP = 0.01, 0.05
_LONG = 400  # values whose quarters show how long they remember each other
_OTHERS = 0.1  # share of values out of the range beyond those of a shift
# Usual confusions of units: 255 is of pixels, the offsets are °F and kelvin.
_FACTORS = (1.609344, 2.20462, 2.54, 3.28084, 3.6, 10.0, 25.4, 60.0, 100.0, 255.0, 1000.0, 3600.0, 1e6)
_UNITS = tuple(
    (f"{sign} {factor:g}", factor if sign == "×" else 1 / factor, 0.0) for factor in _FACTORS for sign in "×÷"
)
_UNITS += (
    ("× 1.8 + 32", 1.8, 32.0),
    ("- 32, ÷ 1.8", 1 / 1.8, -32 / 1.8),
    ("+ 273.15", 1, 273.15),
    ("- 273.15", 1, -273.15),
)
_FAR, _ALIKE = 0.5, 0.05  # largest differences of the distribution functions: before and after a conversion


@dataclass(frozen=True, eq=False)
class NumberWindow:
    """The known values of a column in a window, n ≥ 1, next to its sketch.

    Attributes:
        sketch: of the reference, with at least one value.
        values: in the order of time, float64 (n,).
        ordered: the same, sorted.
        groups: of the values, int64 (n,); None where they are not known.
        expected: what a cycle makes of each, float64 (n,): only what is left remembers something; None without one.
    """

    sketch: NumberSketch
    values: NDArray[np.float64]
    ordered: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None
    expected: NDArray[np.float64] | None = None

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """The values as their dependence is estimated, float64 (n,)."""
        n, values, ordered = len(self.ordered), self.values, self.ordered
        if self.expected is not None:
            values = values - self.expected
            ordered = np.sort(values)
        low, high = ordered[int(_CLIP * (n - 1))], ordered[n - 1 - int(_CLIP * (n - 1))]
        # Clipped, a few outliers do not hide the autocorrelation of all others; ranks would cost another sort.
        is_clippable = low < high and np.isfinite(low) and np.isfinite(high)
        # A column that is mostly one value, or infinite: the rest of it against that.
        return np.clip(values, low, high) if is_clippable else (self.values > self.median).astype(np.float64)

    @cached_property
    def memory(self) -> float:
        """The number of values that are worth an independent one, whatever their groups."""
        return estimate_dependence(self.scores, None)

    @cached_property
    def correlation_time(self) -> float:
        """The number of values that are worth an independent one."""
        return self.memory if self.groups is None else estimate_dependence(self.scores, self.groups)

    @cached_property
    def reference_effective(self) -> float:
        """The effective sample size of the reference: its order may not be known, but that it remembers as much is."""
        return min(self.sketch.effective, self.sketch.known / self.memory)

    @cached_property
    def usual_time(self) -> float:
        """The same by the median of quarters: damage in one of them is not a memory of the others."""
        if len(self.values) < _LONG or self.correlation_time < 2:
            return self.correlation_time
        groups = [None] * 4 if self.groups is None else np.array_split(self.groups, 4)
        times = map(estimate_dependence, np.array_split(self.scores, 4), groups)
        return min(self.correlation_time, float(np.median(list(times))))

    @cached_property
    def effective(self) -> float:
        """The effective sample size of the window."""
        return len(self.values) / self.correlation_time

    @cached_property
    def deviation_time(self) -> float:
        """The number of distances from the median that are worth an independent one."""
        return estimate_dependence(abs(self.scores - np.median(self.scores)), self.groups)

    @cached_property
    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The number of values below, and up to, each value of the sketch; int64 (m,) each."""
        below = np.searchsorted(self.ordered, self.sketch.values, "left")
        # Most columns have no ties: a second search only where a value is equal.
        is_tied = self.ordered[np.minimum(below, len(self.ordered) - 1)] == self.sketch.values
        return below, (np.searchsorted(self.ordered, self.sketch.values, "right") if is_tied.any() else below)

    @cached_property
    def distance(self) -> float:
        """The largest difference of the two distribution functions, 0 to 1; to within 1/4,096 of a larger sketch."""
        below, up_to = self.counts
        n = len(self.ordered)
        lower, upper = below / n - self.sketch.below, up_to / n - self.sketch.up_to
        return float(max(lower.max(), -lower.min(), upper.max(), -upper.min()))

    @cached_property
    def median(self) -> float:
        """The median of the values."""
        n = len(self.ordered)
        return float(self.ordered[(n - 1) // 2] / 2 + self.ordered[n // 2] / 2)

    @cached_property
    def shift(self) -> float:
        """The change of the median in standard deviations of the reference; infinite if that is constant."""
        change = self.median - self.sketch.median
        if not self.sketch.spread:
            return math.copysign(math.inf, change) if change else 0.0
        return change / self.sketch.spread

    def compute_moved_share(self) -> float:
        """Return the share of the reference that would be out of its range if it had moved as the median has."""
        change, values = self.median - self.sketch.median, self.sketch.values
        return float(np.mean(values + change > values[-1]) if change > 0 else np.mean(values + change < values[0]))

    def count_outside(self, index: int) -> tuple[int, int]:
        """Return the number of values below the sketch's value at `index`, and above that at `index` from the end."""
        below, up_to = self.counts
        return int(below[index]), len(self.ordered) - int(up_to[-1 - index])


def compare_number_column(
    sketch: NumberSketch,
    sample: NDArray[np.float64],
    label: str,
    groups: NDArray[np.int64] | None = None,
    expected: NDArray[np.float64] | None = None,
) -> tuple[NumberWindow | None, list[ColumnDrift]]:
    """Return the results of all tests of a column, those of its quality first, and what they were computed from.

    Args:
        sketch: of the reference.
        sample: in the order of time, float64 (n,); NaN where missing.
        label: of the column, for sentences.
        groups: such as users, of which each may be like itself, int64 (n,); None where they are not known.
        expected: what a cycle makes of each, float64 (n,); None without one.
    """
    is_missing = np.isnan(sample)
    results = list(compare_missing_share(sketch, sample, is_missing, label, _SHARES["missing"], groups))
    if is_missing.any():
        sample, groups = sample[~is_missing], None if groups is None else groups[~is_missing]
        expected = None if expected is None else expected[~is_missing]
    window = NumberWindow(sketch, sample, np.sort(sample), groups, expected) if len(sample) and sketch.known else None
    if window is not None:
        results += _find_constant(window, label)
        results += _find_unit(window, label)
        results += _find_values_out_of_range(window, label)
        results.append(_compare_distribution(window, label))
    return window, results


def _compute_distribution_p(window: NumberWindow) -> float:
    """Return the chance of such a difference of the distributions where nothing has changed.

    By the Kolmogorov–Smirnov test, the rank-sum test (Mann and Whitney, 1947), which finds smaller shifts, and Mood's
    (On the asymptotic efficiency of certain nonparametric two-sample tests, 1954), which finds smaller changes of the
    deviation; all at the effective sizes of window and reference.
    """
    p = min(_compute_function_p(window) / _SHARES["function"], _compute_location_p(window) / _SHARES["location"])
    # Of p-values that matter, and that decide.
    spread = _compute_spread_p(window, least=min(0.001, p * _SHARES["spread"]))
    return min(1.0, p, spread / _SHARES["spread"])


def _compute_function_p(window: NumberWindow) -> float:
    sketch = window.sketch
    p = float(compute_ks_p(window.distance, window.reference_effective, window.effective))
    is_whole = len(sketch.values) == sketch.known
    # Of few numbers the approximation may be too small: three against five would have p = 0.02 for 0.04.
    if is_whole and sketch.known * len(window.ordered) <= MAX_EXACT_PAIRS and np.isfinite(window.ordered).all():
        p = max(p, compute_exact_ks_p(sketch.values, window.ordered))
    return p


def _compute_location_p(window: NumberWindow) -> float:
    below, up_to = window.counts
    m, n = window.reference_effective, window.effective
    # Of effective sizes, and smaller where values are tied.
    variance = window.sketch.tie_factor * (1 / m + 1 / n + 1 / (m * n)) / 12
    # A constant reference has no ranks to compare: the distribution function decides alone.
    if variance <= 0:
        return 1.0
    # The share of pairs in which the window's value is the larger one, ties half; 1/2 where nothing has changed.
    pairs = 2 * len(window.ordered) * len(below)
    larger = 1 - float(below.sum() + up_to.sum()) / pairs
    return math.erfc(abs(larger - 0.5) / math.sqrt(2 * variance))


def _compute_spread_p(window: NumberWindow, least: float) -> float:
    """Return the p-value of the squared distances of ranks from the middle one; below `least` with more care."""
    below, up_to = window.counts
    ranks = window.sketch.below + window.sketch.up_to  # 0 to 2
    now = (below + up_to) / len(window.ordered)
    z = abs(float((ranks - 1) @ (now - ranks))) / (2 * len(ranks)) * math.sqrt(180)

    def compute_p(effective: float) -> float:
        return math.erfc(z / math.sqrt(2 * (1 / window.reference_effective + 1 / effective)))

    p = compute_p(window.effective)
    # Deviations may be remembered longer than the values, as those of prices are.
    return p if p > least else max(p, compute_p(len(window.values) / window.deviation_time))


def _compare_distribution(window: NumberWindow, label: str) -> ColumnDrift:
    sketch = window.sketch
    p, tails = _compute_distribution_p(window), _compare_tails(window, label)
    # The tails of a column that has moved have moved, too.
    if tails.p < p and abs(window.shift) < STILL:
        return tails
    return ColumnDrift(
        sketch.name,
        label,
        "distribution",
        sketch.median,
        window.median,
        window.distance,
        min(p, tails.p),
        sketch,
        window.values,
        window.effective,
        window.shift,
    )


def _compare_tails(window: NumberWindow, label: str) -> ColumnDrift:
    """Compare the shares beyond the reference's outermost percents; exactly, also for small references."""
    sketch, n = window.sketch, len(window.values)
    index = round(_TAIL * (len(sketch.values) - 1))
    low, high = window.count_outside(index)
    p = _compute_outside_p(window, (low, high), index)
    before, now = 2 * int(sketch.ranks[index]) / sketch.known, (low + high) / n
    return ColumnDrift(
        sketch.name,
        label,
        "tails",
        before,
        now,
        max(window.distance, abs(now - before)),
        min(1.0, p / _SHARES["tails"]),
        sketch,
        window.values,
        window.effective,
    )


def _find_values_out_of_range(window: NumberWindow, label: str) -> Iterator[ColumnDrift]:
    sketch = window.sketch
    outside = window.count_outside(0)
    # A column that has moved leaves the range with its outermost values: that is one finding, not two. More than that
    # are others, such as values of another unit, which the size of the shift would hide.
    is_more = sum(outside) / len(window.values) >= window.compute_moved_share() + _OTHERS
    if any(outside) and (abs(window.shift) < STILL or is_more or 2 * sum(outside) >= len(window.values)):
        p = min(1.0, _compute_outside_p(window, outside, 0) / _SHARES["range"])
        share = sum(outside) / len(window.values)
        yield ColumnDrift(sketch.name, label, "range", 0.0, share, share, p, sketch, window.values, window.effective)


def _compute_outside_p(window: NumberWindow, outside: tuple[int, int], index: int) -> float:
    """Return twice the chance of so many values on one side, beyond the sketch's value at `index` from its end; the
    callers limit it to 1.
    """
    sketch, n = window.sketch, len(window.values)
    # As many of the reference are beyond a threshold of the same rank on both sides.
    most, reference = max(outside), int(sketch.ranks[index])
    # Both sides have the same expectation: the larger count decides, and mostly there is nothing to test.
    if most * sketch.known <= reference * n:
        return 1.0
    scale, time = sketch.effective / sketch.known, window.correlation_time if index else window.usual_time
    if window.groups is not None:
        # One user may have all extreme values, however little users differ otherwise.
        low, high = sketch.values[index], sketch.values[-1 - index]
        is_beyond = window.values < low if outside[0] == most else window.values > high
        time = max(time, estimate_group_time(is_beyond.astype(np.float64), window.groups))
    return 2 * float(compute_exceedance_p(most / time, n / time, reference * scale, sketch.effective))


def _find_constant(window: NumberWindow, label: str) -> Iterator[ColumnDrift]:
    """Find a column that is stuck: all values are equal, those of the reference are not."""
    sketch, value = window.sketch, float(window.ordered[0])
    if value != window.ordered[-1] or sketch.values[0] == sketch.values[-1] or len(window.values) < 2:
        return
    # One more than was seen: a value that the reference lacks may still have a small share.
    share = float(np.mean(sketch.values == value)) + 1 / (sketch.effective + 1)
    # The window itself does not show its autocorrelation: the reference's is taken.
    effective = len(window.values) * sketch.effective / sketch.known
    p = min(1.0, share) ** max(0.0, effective - 1) / _SHARES["constant"]
    yield ColumnDrift(
        sketch.name, label, "constant", sketch.median, value, 1 - min(1.0, share), min(1.0, p), sketch,
        window.values, effective,
    )  # fmt: skip


def _find_unit(window: NumberWindow, label: str) -> Iterator[ColumnDrift]:
    """Find values that are far from the reference, and like it in another unit."""
    sketch = window.sketch
    # With what chance adds to the largest difference of so few values; of very few, any unit would be alike.
    alike = _ALIKE + 1.2 * math.sqrt(1 / window.effective + 1 / sketch.effective)
    if window.distance < _FAR or alike > _FAR / 2 or not sketch.spread > 0:
        return
    converted = {
        words: replace(window, sketch=replace(sketch, values=sketch.values * factor + offset)).distance
        for words, factor, offset in _UNITS
    }
    words = min(converted, key=converted.__getitem__)
    if converted[words] <= alike:
        p = min(1.0, _compute_function_p(window) / _SHARES["unit"])
        yield ColumnDrift(
            sketch.name, label, "unit", sketch.median, window.median, window.distance, p, sketch, window.values,
            window.effective, window.shift, words,
        )  # fmt: skip


def compare_missing_share(
    sketch: ColumnSketch,
    sample: Column,
    is_missing: NDArray[np.bool_],
    label: str,
    share: float,
    groups: NDArray[np.int64] | None = None,
) -> Iterator[ColumnDrift]:
    """Yield a result where values are missing, now or before, by Fisher's exact test.

    Args:
        sketch: of the reference.
        sample: the column, (n,).
        is_missing: bool (n,).
        label: of the column, for sentences.
        share: of the column's false-discovery budget.
        groups: of the samples, (n,); None where they are not known.
    """
    count, n = int(is_missing.sum()), len(sample)
    if not n or not sketch.samples or not (count or sketch.missing):
        return
    # Values that are missing now and then may be missing in bursts. Where none were missing before, any are news.
    scores = is_missing.astype(np.float64)
    time = estimate_dependence(scores, groups) if sketch.missing else 1.0
    time = max(time, 1.0 if groups is None else estimate_group_time(scores, groups))
    scale = sketch.effective / sketch.known if sketch.known else 1.0
    before, now = sketch.missing / sketch.samples, count / n
    many, few = (count, sketch.missing) if now >= before else (n - count, sketch.known)
    p = float(compute_exceedance_p(many / time, n / time, few * scale, sketch.samples * scale))
    p *= 2 if sketch.missing else 1  # more or fewer
    yield ColumnDrift(
        sketch.name,
        label,
        "missing",
        before,
        now,
        # Fewer missing values than before are not a problem of the data.
        max(0.0, now - before),
        min(1.0, p / share),
        sketch,
        sample,
        n / time,
    )
