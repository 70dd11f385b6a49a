"""Compares every column of a window with its sketch, at one false-discovery rate over all columns.

The result that stands for a column where several tests have compared it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift.category_tests import CategoryWindow, compare_category_column
from mlscale.monitor.drift.column_drift import GROUP, QUALITY, Column, ColumnDrift
from mlscale.monitor.drift.number_tests import NumberWindow, compare_number_column
from mlscale.monitor.drift.piece_tests import find_piece_faults, find_repeated_rows
from mlscale.monitor.drift.seasonal_reference import (
    SeasonalReference,
    compute_cycle_ratio,
    compute_usual_values,
    exceeds_any_cycle,
)
from mlscale.reference.column_sketch import (
    CategorySketch,
    ColumnSketch,
    NumberSketch,
    build_category_sketch,
    build_number_sketch,
)
from mlscale.stats.design_effect import number_groups
from mlscale.stats.discoveries import apply_benjamini_hochberg

# The p-value above which a window counts as similar to the reference, whatever earlier weeks were like.
_SIMILAR = 0.05
_WEEK_SHARE = 0.2  # of a column's false-discovery budget: the week before, compared with the reference


@dataclass(frozen=True)
class DriftLimits:
    """The limits of drift.

    Attributes:
        fdr: the highest chance that a look detects drift where there is none.
        min_distance: the smallest distance of a column that is worth an alert, 0 to 1.
    """

    fdr: float = 0.01
    min_distance: float = 0.1


@dataclass(frozen=True, eq=False)
class _Comparison:
    """The results of one column, and what they were computed from; None where a side has no values."""

    sketch: ColumnSketch
    window: NumberWindow | CategoryWindow | None
    results: Sequence[ColumnDrift] = field(repr=False)


def compare_columns(
    sketches: Sequence[ColumnSketch],
    columns: Mapping[str, Column],
    times: NDArray[np.datetime64],
    limits: DriftLimits,
    seasonal: SeasonalReference | None = None,
    labels: Mapping[str, str] | None = None,
) -> tuple[ColumnDrift, ...]:
    """Compare the columns of a window with the reference: findings about the quality of the data, then each column.

    Each column has several tests, which share its budget; over the columns, Benjamini and Hochberg's procedure
    controls false discoveries. All sizes are effective ones, so dependent events are no false evidence. With a seasonal
    reference, a column has changed where it differs from earlier events of the same hours, or the whole week before
    differs from the reference. Without one, a window of less than a week is held back where a cycle
    could explain it.

    Args:
        sketches: of the reference.
        columns: of the window by name, in the order of time, (n,) each; `GROUP` is that of each event, if known.
        times: of the events, datetime64[us] (n,); empty if not known.
        limits: of drift.
        seasonal: earlier events, once there is a week of them.
        labels: names of the columns in sentences; by default without the group.
    """
    labels, groups = labels or {}, number_groups(columns.get(GROUP))
    comparisons = [
        _compare_column(
            sketch, columns.get(sketch.name), labels.get(sketch.name, sketch.name.partition(".")[2]), groups
        )
        for sketch in sketches
    ]
    repeated = find_repeated_rows(sketches, columns)
    comparisons = [
        replace(of, results=[repeated, *of.results]) if repeated and of.sketch is repeated.reference else of
        for of in comparisons
    ]
    # Before the procedure below: it must see the p-values that decide.
    if seasonal is not None:
        comparisons = [_consider_season(comparison, seasonal, columns, times) for comparison in comparisons]
    results = _judge_results([comparison.results for comparison in comparisons], limits.fdr)
    ratio = compute_cycle_ratio(times)
    # After it: a column that is held back still counts among those that were tested. With earlier weeks the cycle is
    # part of what is compared with: nothing has to be held back.
    if ratio > 1:
        results = [
            column
            if seasonal is not None and _has_season(comparison, seasonal)
            else [_hold_back(result, comparison, ratio, limits.fdr / len(comparisons)) for result in column]
            for column, comparison in zip(results, comparisons, strict=True)
        ]
    every = [result for column in results for result in column]
    # Where data is broken, what its values say comes second.
    broken = [result for result in every if result.kind in QUALITY and result.is_significant]
    broken.sort(key=lambda result: (QUALITY.index(result.kind), -result.distance))
    return (*broken, *(result for result in every if result.kind not in QUALITY))


def _compare_column(
    sketch: ColumnSketch,
    sample: Column | None,
    label: str,
    groups: NDArray[np.int64] | None,
    expected: NDArray[np.float64] | None = None,
) -> _Comparison:
    is_number = isinstance(sketch, NumberSketch)
    if sample is None or is_number != (sample.dtype.kind in "fiu"):
        broken = ColumnDrift(sketch.name, label, "type", 0.0, 1.0, 1.0, 0.0, sketch, None, 0.0)
        return _Comparison(sketch, None, [broken])
    if isinstance(sketch, CategorySketch):
        return _Comparison(sketch, *compare_category_column(sketch, sample.astype(object, copy=False), label, groups))
    window, results = compare_number_column(sketch, sample.astype(np.float64, copy=False), label, groups, expected)
    # The distribution stays the last result.
    pieces = [] if window is None else find_piece_faults(window, label)
    return _Comparison(sketch, window, [*pieces, *results])


def _consider_season(
    comparison: _Comparison,
    seasonal: SeasonalReference,
    columns: Mapping[str, Column],
    times: NDArray[np.datetime64],
) -> _Comparison:
    """Compare the distribution with earlier events of the same hours, and their week with the reference."""
    window, sketch = comparison.window, comparison.sketch
    if window is None or not _has_season(comparison, seasonal):
        return comparison
    hours, week = seasonal.same_hours[sketch.name], seasonal.week[sketch.name]
    # The distribution is the last result of a column; the quality of the data has no season.
    *quality, now = comparison.results
    usual_before, usual_now = None, None
    if isinstance(window, NumberWindow) and len(seasonal.times) and len(times):
        usual_before, usual_now = compute_usual_values(hours.astype(np.float64, copy=False), seasonal.times, times)
        usual_now = usual_now[~np.isnan(columns[sketch.name].astype(np.float64, copy=False))]
        # A cycle is not a memory: the values around it may be independent.
        now = _compare_column(sketch, window.values, now.label, window.groups, usual_now).results[-1]
    like = _sketch_like(sketch, hours, number_groups(seasonal.same_hours.get(GROUP)), usual_before)
    by_hours = _compare_column(like, window.values, now.label, window.groups, usual_now)
    by_week = _compare_column(sketch, week, now.label, number_groups(seasonal.week.get(GROUP)))
    # Without values on one side there may be a result about missing ones, or none at all.
    if by_hours.window is None or by_week.window is None:
        return comparison
    earlier, lasting = by_hours.results[-1], by_week.results[-1]
    # The peak of a cycle may be as far from all hours as another unit, and out of their range.
    at_hours = {result.kind: result.p for result in by_hours.results}
    quality = [
        replace(result, p=max(result.p, at_hours.get(result.kind, 1.0))) if result.kind in ("unit", "range") else result
        for result in quality
    ]
    # A window that is like the reference has not drifted, even where an incident of last week makes the difference.
    p = min(1.0, earlier.p / (1 - _WEEK_SHARE)) if now.p <= _SIMILAR else 1.0
    p_lasting = lasting.p / _WEEK_SHARE
    result = replace(lasting, p=p_lasting) if p_lasting < p else replace(earlier, p=p)
    return replace(comparison, results=[*quality, result])


def _has_season(comparison: _Comparison, seasonal: SeasonalReference) -> bool:
    """Return whether there are earlier values of the column, of its kind: those of another version may be texts."""
    sides = [side.get(comparison.sketch.name) for side in (seasonal.same_hours, seasonal.week)]
    kinds = {None if side is None else side.dtype.kind for side in sides}
    return comparison.window is not None and kinds == {comparison.window.values.dtype.kind}


def _sketch_like(
    sketch: ColumnSketch, values: Column, groups: NDArray[np.int64] | None, usual: NDArray[np.float64] | None
) -> ColumnSketch:
    like: ColumnSketch
    if isinstance(sketch, NumberSketch):
        numbers = values.astype(np.float64, copy=False)
        like = build_number_sketch(sketch.name, sketch.group, numbers, sketch.unit, is_ordered=usual is None)
    else:
        like = build_category_sketch(sketch.name, sketch.group, values.tolist())
    # A sketch knows no groups and no cycle: compared with itself, the window of its values has their effective number.
    window = None if groups is None and usual is None else _compare_column(like, values, "", groups, usual).window
    return like if window is None else replace(like, effective=min(like.effective, window.effective))


def _judge_results(results: Sequence[Sequence[ColumnDrift]], fdr: float) -> list[list[ColumnDrift]]:
    """Return the results of each column with their q-values, by one procedure over the smallest p-value of each."""
    # The tests of a column share its budget already, so its smallest p-value stands for it.
    smallest = np.array([min((result.p for result in column), default=1.0) for column in results])
    q_of_smallest = np.array(apply_benjamini_hochberg(smallest.tolist(), fdr).q)
    judged = []
    for column in results:
        row = []
        for result in column:
            # The q-value that the column would have by this result alone: that of its rank, or of a larger p-value.
            own = len(smallest) * result.p / int((smallest <= result.p).sum())
            q = min(own, q_of_smallest[smallest >= result.p].min(initial=1.0))
            row.append(replace(result, q=float(q), is_significant=bool(q <= fdr)))
        judged.append(row)
    return judged


def _hold_back(result: ColumnDrift, comparison: _Comparison, ratio: float, p: float) -> ColumnDrift:
    if not result.is_significant or result.kind in QUALITY or comparison.window is None:
        return result
    return replace(result, may_be_cycle=not exceeds_any_cycle(comparison.window, ratio, p))


def select_farthest_results(columns: Sequence[ColumnDrift]) -> dict[str, ColumnDrift]:
    """Return the result with the largest distance of each column, by the column's name, in the order of `columns`.

    A share of values out of the range is a smaller distance than that of the distributions: what stands for the
    column must not depend on the order of the tests.
    """
    farthest: dict[str, ColumnDrift] = {}
    for column in columns:
        known = farthest.get(column.name)
        if known is None or column.distance > known.distance:
            farthest[column.name] = column
    return farthest
