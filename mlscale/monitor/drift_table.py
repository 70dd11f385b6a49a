"""The columns of a look as a table and as a document: all that were detected, where a sentence has the farthest one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlscale.atomic_files import convert_to_json
from mlscale.monitor.drift import ColumnDrift
from mlscale.report import TableBlock


def build_drift_table(columns: Sequence[ColumnDrift], min_distance: float) -> tuple[TableBlock, ...]:
    """Return a table of the results that are significant, the farthest first; none where there are none.

    Args:
        columns: of one look.
        min_distance: from which on a change is worth an alert.
    """
    shown = _select_significant(columns)
    rows = [
        [column.label, column.group, column.format_change(), f"{column.distance:.3f}", _judge(column, min_distance)]
        for column in shown
    ]
    names = ("column", "of", "change", "distance", "")
    return (TableBlock("Changed columns", names, rows),) if rows else ()


def list_changed_columns(columns: Sequence[ColumnDrift], min_distance: float) -> list[dict[str, Any]]:
    """Return a document for each row of the table: its name, change, direction, size, distance and q-value."""
    documents: list[dict[str, Any]] = convert_to_json(
        [
            {
                "name": column.name,
                "kind": column.kind,
                "change": column.format_change(),
                "before": column.before,
                "now": column.now,
                "shift_sigma": column.shift,
                "category": column.category,
                "distance": column.distance,
                "q": column.q,
                "alert": column.is_detected and column.distance >= min_distance,
            }
            for column in _select_significant(columns)
        ]
    )
    return documents


def _select_significant(columns: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    return sorted((column for column in columns if column.is_significant), key=lambda column: -column.distance)


def _judge(column: ColumnDrift, min_distance: float) -> str:
    if column.may_be_cycle:
        return "may be a cycle"
    return "alert" if column.distance >= min_distance else "too small for an alert"
