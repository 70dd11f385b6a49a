"""The result that stands for a column where several tests have compared it."""

from __future__ import annotations

from collections.abc import Sequence

from mlscale.monitor.drift.column_drift import ColumnDrift


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
