"""Finds groups that training and validation data share, and times that overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlscale.data.table_parsing.columns import DataTable
from mlscale.data.table_parsing.hold_out import read_groups, read_times


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
