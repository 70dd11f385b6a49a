"""Finds groups that both splits share, times that overlap, and columns that alone predict the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.table_parsing.columns import Column, DataTable
from mlscale.data.table_parsing.hold_out import read_groups, read_times
from mlscale.report.text import format_percent


def describe_split_leaks(train: DataTable, val: DataTable, group_on: str | None, time_on: str | None) -> list[str]:
    """Return a line for groups that both splits have, and one for validation rows that are not later than training.

    Args:
        train, val: the rows of the splits.
        group_on: the column of groups; None for none.
        time_on: the column of times; None for none.

    Raises:
        MLScaleError: a split has no such column, or a row has no time that can be read.
    """
    lines = []
    if group_on is not None:
        # Rows without a group are named by their number, which no other row has.
        known = set(read_groups(train, group_on, [f"train {row}" for row in range(len(train))]))
        groups = read_groups(val, group_on, [f"val {row}" for row in range(len(val))])
        lines += describe_shared_groups(known, groups, val.keys, group_on)
    if time_on is not None:
        last, times = float(read_times(train, time_on).max()), read_times(val, time_on)
        early = np.flatnonzero(times <= last)
        if len(early):
            first = val.keys[int(early[np.argmin(times[early])])]
            lines.append(
                f"leak      {len(early):,} of {len(times):,} validation samples are not later than the last training "
                f"sample, by {time_on!r}: {first} is the earliest; the metric is not one of the future"
            )
    return lines


def describe_shared_groups(known: set[str], groups: Sequence[str], keys: Sequence[str], group_on: str) -> list[str]:
    """Return a line if validation samples are of groups that training has, too; none otherwise.

    Args:
        known: the groups of training.
        groups, keys: the group and the name of each validation sample.
        group_on: what a group is.
    """
    # Every row of such a group counts: a model may have learnt any of them.
    shared = [row for row, group in enumerate(groups) if group in known]
    if not shared:
        return []
    names = {groups[row] for row in shared}
    return [
        f"leak      {len(shared):,} of {len(groups):,} validation samples are of groups that training has, too, by "
        f"{group_on!r}: {len(names):,} groups, such as that of {keys[shared[0]]}; "
        "the metric counts what was learnt of them"
    ]


_MIN_ROWS = 30
"""Validation rows below which a column may predict all of them by chance."""
_MIN_ACCURACY, _MAX_ERROR_RATIO = 0.99, 0.1
"""A column predicts a class if it errs in 1 % at most, and a tenth as often as the most frequent class."""
_MIN_EXPLAINED = 0.998
_MAX_BINS = 256


class LeakingColumn(NamedTuple):
    """A column that predicts the target alone.

    Attributes:
        name: of the column.
        score: the share of validation rows whose class it predicts, or the part of a number's variance.
        baseline: the share of the most frequent class; 0 for a number.
    """

    name: str
    score: float
    baseline: float


def find_leaking_columns(
    train: Mapping[str, Column], val: Mapping[str, Column], targets: tuple[NDArray[np.generic], NDArray[np.generic]]
) -> list[LeakingColumn]:
    """Return the columns that alone predict the target of validation rows, by what training rows have shown.

    A class is predicted as the most frequent one among training rows with the same text, or with a number in the same
    one of up to 256 bins; a number by a line through its values or their ranks, or as the mean of rows with the same
    text.

    Args:
        train, val: the columns by name, as read.
        targets: of training and of validation rows: class numbers, int64 (n,), or one number each, float (n,).
    """
    known, wanted = targets
    if len(wanted) < _MIN_ROWS:
        return []
    leaking = []
    is_class = known.dtype.kind in "iu"
    for name, column in train.items():
        if is_class:
            leak = _score_classes(name, column, val[name], known.astype(np.int64), wanted.astype(np.int64))
        else:
            leak = _score_numbers(name, column, val[name], known.astype(np.float64), wanted.astype(np.float64))
        if leak is not None:
            leaking.append(leak)
    return leaking


def format_leaking_column(column: LeakingColumn) -> str:
    """Return the line that a run prints."""
    if column.baseline:
        what = (
            f"the class of {format_percent(column.score)} of the validation samples "
            f"(the most frequent class: {format_percent(column.baseline)})"
        )
    else:
        what = f"{format_percent(column.score)} of the target's variance"
    return (
        f"leak      {column.name!r} alone predicts {what}; if it is not known before the target, "
        f"leave it out: 'data.ignore=[\"{column.name}\"]'"
    )


def _score_classes(
    name: str, train: Column, val: Column, known: NDArray[np.int64], wanted: NDArray[np.int64]
) -> LeakingColumn | None:
    codes, others, count = _number_values(train, val)
    # How many training rows with each text, or in each bin, have each class.
    votes = np.zeros((count, int(max(known.max(), wanted.max())) + 1), np.int64)
    np.add.at(votes, (codes, known), 1)
    baseline_class = int(votes.sum(0).argmax())
    winners = np.where(votes.sum(1) > 0, votes.argmax(1), baseline_class)
    score = float((winners[others] == wanted).mean())
    baseline = float((wanted == baseline_class).mean())
    if score < _MIN_ACCURACY or 1 - score > _MAX_ERROR_RATIO * (1 - baseline):
        return None
    return LeakingColumn(name, score, baseline)


def _score_numbers(
    name: str, train: Column, val: Column, known: NDArray[np.float64], wanted: NDArray[np.float64]
) -> LeakingColumn | None:
    if isinstance(train, np.ndarray) and isinstance(val, np.ndarray):
        usable = np.isfinite(val) & np.isfinite(wanted)
        # Ranks, so that a target that was converted, to a logarithm or a percentile, is found as well.
        pairs = ((val[usable], wanted[usable]), (_rank_values(val[usable]), _rank_values(wanted[usable])))
        explained = max(_square_correlation(x, y) for x, y in pairs) if usable.sum() >= _MIN_ROWS else 0.0
    else:
        codes, others, count = _number_values(train, val)
        sums = np.bincount(codes, known, count) / np.maximum(1, np.bincount(codes, minlength=count))
        explained = 1 - float(((sums[others] - wanted) ** 2).sum() / (((wanted - wanted.mean()) ** 2).sum() or 1))
    return LeakingColumn(name, explained, 0.0) if explained >= _MIN_EXPLAINED else None


def _number_values(train: Column, val: Column) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the number of each row's text, or of the bin of its number, for both splits; and how many there are."""
    if isinstance(train, np.ndarray) and isinstance(val, np.ndarray):
        finite = train[np.isfinite(train)]
        # Several rows in each, or a bin would learn its rows by heart.
        bins = max(1, min(_MAX_BINS, len(finite) // 8))
        edges = np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1)[1:-1])) if len(finite) else np.empty(0)
        # One more for missing values, which may predict, too.
        sides = [np.where(np.isnan(x), len(edges) + 1, np.searchsorted(edges, x, "right")) for x in (train, val)]
        return sides[0].astype(np.int64), sides[1].astype(np.int64), len(edges) + 2
    numbers = {text: number for number, text in enumerate(dict.fromkeys(map(str, train)))}
    # A text that training does not have predicts what is most frequent.
    unseen = len(numbers)
    coded = [np.array([numbers.get(str(text), unseen) for text in x], np.int64) for x in (train, val)]
    return coded[0], coded[1], unseen + 1


def _rank_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 0; equal values share the mean of theirs."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2


def _square_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    # The correlation of a constant is not defined.
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1] ** 2)
