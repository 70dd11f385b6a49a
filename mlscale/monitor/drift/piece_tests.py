"""Faults in a piece of a window, whatever the memory of the series: values that are stuck, clipped or rounded.

Rows that repeat, as a cache or a retry sends them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift.column_drift import Column, ColumnDrift, DriftKind
from mlscale.monitor.drift.number_tests import NumberWindow
from mlscale.reference.column_sketch import ColumnSketch, NumberSketch
from mlscale.stats.design_effect import estimate_group_time
from mlscale.stats.exceedances import compute_exceedance_p

_SHARE = 0.004  # of a column's false-discovery budget, for each of five tests
_NEAR = 20  # events in which far ones are counted
_FEWEST = 5  # events that are worth a report
_DIGITS, _LARGEST = (0, 1, 2), 1e5  # decimals that are looked for, of numbers that float32 has with two


def find_piece_faults(window: NumberWindow, label: str) -> list[ColumnDrift]:
    """Return values of a column that are stuck, clipped or rounded."""
    tests = (_find_stuck_run, _find_far_piece, _find_clipping, _find_rounding)
    return [result for find in tests for result in find(window, label)]


def find_repeated_rows(sketches: Sequence[ColumnSketch], columns: Mapping[str, Column]) -> ColumnDrift | None:
    """Return the result of the column that shows best that whole inputs are repeated; None if they are not."""
    inputs = [sketch for sketch in sketches if sketch.group == "inputs" and sketch.name in columns]
    numbers = [
        sketch for sketch in inputs if isinstance(sketch, NumberSketch) and columns[sketch.name].dtype.kind == "f"
    ]
    is_equal: NDArray[np.bool_] | None = None
    # Numbers first: mostly, none of them is repeated.
    for sketch in [*numbers, *(sketch for sketch in inputs if sketch not in numbers)]:
        before, now = columns[sketch.name][:-1], columns[sketch.name][1:]
        same = (before == now) | ((before != before) & (now != now))
        is_equal = same if is_equal is None else is_equal & same
        if np.count_nonzero(is_equal) < _FEWEST - 1:
            return None
    if is_equal is None or len(numbers) < 2:
        return None
    start, length = _find_longest_run(is_equal)
    shares = [_estimate_share(sketch, float(columns[sketch.name][start])) for sketch in numbers]
    # By two columns: one that is stuck alone repeats no rows where the others are often equal.
    least, n = int(np.argsort(shares)[1]), len(is_equal) + 1
    p = min(1.0, n * shares[least] ** (length - 1) / _SHARE)
    if length < _FEWEST or p == 1:
        return None
    sketch, share = numbers[least], int(np.count_nonzero(is_equal)) / n
    return ColumnDrift(
        sketch.name, "the input", "repeated", share, float(length), share, p, sketch, columns[sketch.name], float(n)
    )


def _find_stuck_run(window: NumberWindow, label: str) -> Iterator[ColumnDrift]:
    """Find a run of equal values that is longer than the reference and the other runs of the window make likely."""
    values, n = window.values, len(window.values)
    is_equal = values[1:] == values[:-1]
    pairs = np.count_nonzero(is_equal)
    start, length = _find_longest_run(is_equal) if pairs >= _FEWEST - 1 else (0, 1)
    if length < _FEWEST or length == n:
        return
    # A user that sends constants, in turn with others who do so, is not stuck; nor is rain that is often zero for long.
    is_value = values[:-1] == values[start]
    others = np.count_nonzero(is_value) - length + 3
    own = (np.count_nonzero(is_equal & is_value) - length + 1) / others
    usual = max(own + 2 * math.sqrt(own * (1 - own) / others), (pairs - length + 2) / (n - length + 2))
    again = length if window.groups is None else len(np.unique(window.groups[start : start + length]))
    chance = n * max(usual, _estimate_share(window.sketch, float(values[start]))) ** (again - 1)
    yield _build_result(window, label, "stuck", length / n, float(values[start]), length, chance)


def _find_far_piece(window: NumberWindow, label: str) -> Iterator[ColumnDrift]:
    """Find values that are close to each other in time, and farther out of the range than memory reaches."""
    sketch, n = window.sketch, len(window.values)
    low, high = float(sketch.values[0]), float(sketch.values[-1])
    low, high = low - (high - low), high + (high - low)
    if not (window.ordered[0] < low or window.ordered[-1] > high):
        return
    is_far = (window.values < low) | (window.values > high)
    most, share = int(np.convolve(is_far, np.ones(_NEAR)).max()), int(is_far.sum()) / n
    # All of one user may be.
    most = most if window.groups is None else min(most, len(np.unique(window.groups[is_far])))
    if most >= _FEWEST:
        chance = n * math.comb(_NEAR, most) / (sketch.effective + 1) ** most
        yield _build_result(window, label, "range", share, share, 0, chance)


def _find_clipping(window: NumberWindow, label: str) -> Iterator[ColumnDrift]:
    """Find values that are equal to the largest or the smallest one, where those of the reference are not."""
    sketch, ordered, n = window.sketch, window.ordered, len(window.ordered)
    if ordered[0] == ordered[-1]:
        return
    for end, equal in ((0, ordered[: n // 2] == ordered[0]), (-1, ordered[n // 2 :] == ordered[-1])):
        count = int(np.count_nonzero(equal))
        if count < _FEWEST:
            continue
        # Where others are repeated, as those of a user are, the outermost ones are as well.
        inner = np.diff(np.flatnonzero(ordered[1:] != ordered[:-1]))
        time = max(1.0, 2 * float(inner @ inner) / max(1, inner.sum()) - 1)
        before = float(np.mean(sketch.values == ordered[end]))
        many = before * sketch.effective
        # Memory makes no values equal, but those that often are come in bursts.
        time = max(time, window.correlation_time) if many else time
        is_end = window.values == ordered[end]
        if window.groups is not None:
            time = max(time, estimate_group_time(is_end.astype(np.float64), window.groups))
        # A run counts once: it may be a user's, and one that is too long is stuck.
        runs = np.count_nonzero(is_end[1:] & ~is_end[:-1])
        chance = 2 * float(compute_exceedance_p(runs / time, n / time, many, sketch.effective))
        yield _build_result(window, label, "clipped", max(0.0, count / n - before), float(ordered[end]), count, chance)


def _find_rounding(window: NumberWindow, label: str) -> Iterator[ColumnDrift]:
    """Find values with fewer decimals than those of the reference."""
    ordered = window.ordered
    probe = ordered[:: max(1, len(ordered) // 8)]
    is_large = max(-probe[0], probe[-1]) * 10 ** _DIGITS[-1] > _LARGEST
    if ordered[0] == ordered[-1] or is_large or not _are_rounded(probe, _DIGITS[-1]).all():
        return
    digits = next((digits for digits in _DIGITS if _are_rounded(ordered, digits).all()), None)
    if digits is not None:
        before = float(_are_rounded(window.sketch.values, digits).mean()) + 1 / (window.sketch.effective + 1)
        chance = min(1.0, before) ** window.effective
        yield _build_result(window, label, "rounded", window.distance, digits, len(ordered), chance)


def _are_rounded(values: NDArray[np.float64], digits: int) -> NDArray[np.bool_]:
    scaled = values * 10**digits
    with np.errstate(invalid="ignore"):  # of the reference's infinite ones
        close: NDArray[np.bool_] = abs(scaled - np.rint(scaled)) < 0.01
    return close


def _find_longest_run(is_equal: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the first event of the longest run, and its number of events."""
    ends = np.concatenate([[-1], np.flatnonzero(~is_equal), [len(is_equal)]])
    lengths = np.diff(ends)
    longest = int(lengths.argmax())
    return int(ends[longest]) + 1, int(lengths[longest])


def _estimate_share(sketch: NumberSketch, value: float) -> float:
    """Return the largest share that a value is likely to have: one more than was seen."""
    # Of missing values it is not known.
    return 1.0 if value != value else min(1.0, float(np.mean(sketch.values == value)) + 1 / (sketch.effective + 1))


def _build_result(
    window: NumberWindow, label: str, kind: DriftKind, distance: float, value: float, count: int, chance: float
) -> ColumnDrift:
    sketch, effective = window.sketch, window.effective
    p = min(1.0, chance / _SHARE)
    return ColumnDrift(sketch.name, label, kind, count, value, distance, p, sketch, window.values, effective)
