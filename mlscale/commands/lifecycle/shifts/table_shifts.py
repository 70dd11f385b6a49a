"""Changes of a table's rows: a unit that changed, a sensor that is stuck, a category that is new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from mlscale.commands.lifecycle.shifts.shift import Shift
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder

Row = Mapping[str, Any]
_UNITS = (
    ("from °C to °F (× 1.8 + 32)", 1.8, 32.0),
    ("from kg to lb (× 2.2046)", 2.2046, 0.0),
    ("from cm to mm (× 10)", 10.0, 0.0),
    ("from m to mm (× 1,000)", 1000.0, 0.0),
)
"""Conversions of a unit, the mildest first: description, factor, and what is added."""
_MOST_COLUMNS = 50
"""The most columns whose effect is measured."""


def list_table_shifts(name: str, encoder: TableEncoder) -> list[list[Shift]]:
    """Return the changes of rows of this name in groups, the mildest first; of a group one for each column."""
    numbers = [column for column in encoder.columns if isinstance(column, NumberColumn)][:_MOST_COLUMNS]
    if name == "unit":
        return _list_unit_shifts(numbers)
    if name == "stuck":
        ends = [(column, value) for column in numbers for value in (column.minimum, column.maximum)]
        return [
            [
                _build_shift(
                    name,
                    f"the sensor of {column.name} is stuck at {value:g}",
                    column.name,
                    partial(_return_constant, constant=value),
                )
                for column, value in ends
            ]
        ]
    categories = [column for column in encoder.columns if isinstance(column, CategoryColumn)][:_MOST_COLUMNS]
    return [
        [
            _build_shift(
                name,
                f"{column.name} is always {new!r}, a new category",
                column.name,
                partial(_return_constant, constant=new),
            )
            for column in categories
            for new in [_find_new_category(column)]
        ]
    ]


def _list_unit_shifts(columns: Sequence[NumberColumn]) -> list[list[Shift]]:
    """Return the conversions of columns, first those whose values are all outside of what training had: where the two
    overlap no model can know the unit of a value, and none is right for both.
    """
    apart: list[list[Shift]] = []
    overlapping: list[list[Shift]] = []
    for text, factor, offset in _UNITS:
        convert = partial(_convert_unit, factor=factor, offset=offset)
        groups: tuple[list[Shift], list[Shift]] = [], []
        for column in columns:
            ends = (factor * column.minimum + offset, factor * column.maximum + offset)
            is_apart = min(ends) > column.maximum or max(ends) < column.minimum
            description = f"the unit of {column.name} has changed as {text}"
            groups[not is_apart].append(_build_shift("unit", description, column.name, convert))
        apart.append(groups[0])
        overlapping.append(groups[1])
    return [group for group in [*apart, *overlapping] if group]


def _build_shift(name: str, description: str, column: str, change: Callable[[Any], Any]) -> Shift:
    return Shift(name, description, partial(_change_value, column=column, change=change))


def _change_value(row: Row, column: str, change: Callable[[Any], Any]) -> Row:
    # A new row: the samples before the change are compared with those after it.
    return {**row, column: change(row[column])}


def _convert_unit(value: float | None, factor: float, offset: float) -> float | None:
    # A missing value is missing in any unit.
    return None if value is None else factor * float(value) + offset


def _return_constant(value: object, constant: float | str) -> float | str:
    return constant


def _find_new_category(column: CategoryColumn) -> str | float:
    """Return a category that training did not have, of the kind that it had."""
    # A text would be refused, or be another column's mistake, where training has numbers.
    if column.of_numbers:
        known = [float(value) for value in column.values if value]
        return max(known, default=0.0) + 1
    # Longer until it is none: training may have a category that is called so.
    name = "new"
    while name in column.positions:
        name += " new"
    return name
