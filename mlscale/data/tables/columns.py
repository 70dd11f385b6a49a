"""Tables as columns of numbers and of texts, from files of any format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError

Numbers = NDArray[np.float64]
Texts = list[str | None]
Column = Numbers | Texts
"""Numbers, float64 (n,) with NaN where one is missing; or texts, with None where one is."""

MISSING_TEXTS = frozenset(
    {
        *("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "-nan", "null", "NULL"),
        *("#N/A", "#N/A N/A", "#NA", "1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN"),
    }
)
"""Texts of a feature that stand for a missing value, in files of any format and in rows of a request."""

_LIST_KEYS = ("data.ignore", "data.categorical")
_COLUMN_KEYS = (*_LIST_KEYS, "data.units", "data.target", "data.text", "data.label")
"""Keys that name columns; a split may lack one, too."""


@dataclass(frozen=True)
class DataTable:
    """A split's rows.

    Args:
        columns: by name, each as long as the others.
        keys: the name of each row: its file, and its number from 1 without the heading.
    """

    columns: Mapping[str, Column]
    keys: Sequence[str]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def texts(self) -> frozenset[str]:
        """The names of the columns of texts."""
        return frozenset(name for name, column in self.columns.items() if not isinstance(column, np.ndarray))

    def get_column(self, name: str, *, where: str) -> Column:
        """Return a column.

        Raises:
            MLScaleError: the table has no column of that name.
        """
        if name in self.columns:
            return self.columns[name]
        # A cutoff of 0: the nearest name, however different.
        near = next(iter(get_close_matches(name, self.columns, 1, 0.0)), None)
        shown = ", ".join(list(self.columns)[:20]) + (", …" if len(self.columns) > 20 else "")
        raise MLScaleError(
            f"the table has no column {name!r}",
            where=where,
            why=f"its columns are: {shown or 'none'}",
            fix=_suggest_override(where, near) or f"add the column {name!r}, which the training rows have",
        )


def _suggest_override(where: str, near: str | None) -> str | None:
    """Return the override that names the nearest column, if the key names columns; else None."""
    if near is None or where not in _COLUMN_KEYS:
        return None
    if where == "data.units":
        return f"'{where}={{{near}: <its unit>}}'"
    return f"{where}=[{near}]" if where in _LIST_KEYS else f"{where}={near}"


def mark_missing(values: Column) -> Column:
    """Return values with None for each text that stands for a missing one."""
    if isinstance(values, np.ndarray):
        return values
    return [None if text in MISSING_TEXTS else text for text in values]


def parse_numbers(texts: Texts) -> Numbers | None:
    """Return texts as numbers if all that are present read as numbers, truth values as 0 and 1; else None."""
    values = np.full(len(texts), np.nan)
    some = False
    for row, text in enumerate(texts):
        if text is None:
            continue
        number = parse_number(text)
        if number is None:
            return None
        values[row], some = number, True
    return values if some else None


def parse_number(text: str) -> float | None:
    """Return a text as a number; None if it is not one. Digits may not be grouped."""
    lower = text.strip().lower()
    if lower in ("true", "false"):
        return float(lower == "true")
    if "_" in lower:  # Python's own way to write them
        return None
    try:
        return float(lower)
    except ValueError:
        return None


def format_values(column: Column) -> Iterator[str]:
    """Yield the values of a column as text, the same for the same value; a missing one is empty."""
    if isinstance(column, np.ndarray):
        # NaN alone differs from itself; repr is the shortest text that reads as the same number.
        yield from ("" if value != value else repr(value) for value in column.tolist())
    else:
        yield from ("" if value is None else value for value in column)


def separate_numbers(values: Column) -> tuple[Numbers, dict[int, str]]:
    """Return numbers, float64 (n,) with NaN for other values, and these values, by row."""
    if isinstance(values, np.ndarray):
        # An infinite value would make the mean infinite, and the deviation NaN.
        numbers, bad = values.copy(), dict.fromkeys(np.flatnonzero(np.isinf(values)).tolist(), "infinite")
        numbers[list(bad)] = np.nan
        return numbers, bad
    numbers, bad = np.full(len(values), np.nan), {}
    for row, text in enumerate(values):
        number = None if text is None else parse_number(text)
        if number is not None and not np.isinf(number):
            numbers[row] = number
        elif text is not None:
            bad[row] = text
    return numbers, bad


def format_texts(values: Column) -> Texts:
    """Return texts; whole numbers are written without a point, NaN is a missing one."""
    if not isinstance(values, np.ndarray):
        return values
    return [format_number_text(value) for value in values.tolist()]


def format_number_text(value: float) -> str | None:
    """Return a number as text, a whole one without a point; None for NaN, a missing one."""
    if value != value:
        return None
    return str(int(value)) if value.is_integer() else repr(value)
