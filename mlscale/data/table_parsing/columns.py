"""Tables as columns of numbers and of texts, from files of any format."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.config.names.suggest import find_nearest, format_override
from mlscale.errors import MLScaleError, raise_all

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

_MOST_SHOWN = 20
_MOST_WORDS = 20
"""Texts for a missing value that a column has; more of them, or over 20 characters, are content."""
_GROUPED = re.compile(r"[+-]?(?!0)\d{1,3}(?:([,' \u00a0\u202f])\d{3})(?:\1\d{3})*(\.\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?(?:\d*|\d{1,3}(?:\.\d{3})+),\d+|[+-]?\d{1,3}(?:\.\d{3}){2,}")
_IN_BOTH = re.compile(r"[+-]?(?!0)\d{1,3},\d{3}")
_THOUSANDS, _DECIMAL = (format_override(f"data.{key}", ",") for key in ("thousands", "decimal"))
_EITHER = f"{_THOUSANDS}\n{_DECIMAL}"
_LIST_KEYS = ("data.ignore", "data.categorical")
_COLUMN_KEYS = (
    *_LIST_KEYS, "data.units", "data.target", "data.text", "data.label", "data.group_on", "data.time_on",
    "data.image_column", "data.split_column",
)  # fmt: skip
"""Keys that name columns; a split may lack one, too."""


@dataclass(frozen=True)
class DataTable:
    """A split's rows.

    Args:
        columns: by name, each as long as the others.
        keys: the name of each row, such as `line 13 of flats.csv`, where the heading is line 1.
        unreadable: of columns that hold neither numbers nor texts, such as dates and lists, what they hold.
    """

    columns: Mapping[str, Column]
    keys: Sequence[str]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def texts(self) -> frozenset[str]:
        """The names of the columns of texts."""
        return frozenset(name for name, column in self.columns.items() if not isinstance(column, np.ndarray))

    def select_rows(self, mask: NDArray[np.bool_]) -> DataTable:
        """Return the rows where `mask`, (n,), is True."""
        rows = np.flatnonzero(mask).tolist()
        columns: dict[str, Column] = {
            name: column[mask] if isinstance(column, np.ndarray) else [column[row] for row in rows]
            for name, column in self.columns.items()
        }
        return DataTable(columns, [self.keys[row] for row in rows], self.unreadable)

    def get_column(self, name: str, *, where: str) -> Column:
        """Return a column.

        Raises:
            MLScaleError: the table has no column of that name, or it holds neither numbers nor texts.
        """
        if name in self.columns:
            return self.columns[name]
        if name in self.unreadable:
            raise _build_unreadable_error(name, self.unreadable[name], where)
        raise self._build_absent_error([name], where)

    def require_columns(self, names_by_key: Mapping[str, Iterable[str]]) -> None:
        """Raise for the columns that keys of the configuration name and the table does not have, all at once.

        Raises:
            MLScaleError: there are such columns.
        """
        problems: list[MLScaleError] = []
        for key, names in names_by_key.items():
            for name in names:
                try:
                    self.get_column(name, where=key)
                except MLScaleError as problem:
                    problems.append(problem)
        raise_all(problems)

    def check_columns(self, names: Sequence[str], *, where: str) -> None:
        """Raise an error if the table lacks columns, which names all of them.

        Raises:
            MLScaleError: it does.
        """
        if absent := [name for name in names if name not in self.columns and name not in self.unreadable]:
            raise self._build_absent_error(absent, where)

    def _build_absent_error(self, absent: Sequence[str], where: str) -> MLScaleError:
        near = _find_same_name(absent[0], self.columns) or find_nearest(absent[0], self.columns)
        named = f"column{'s' * (len(absent) > 1)} {_quote_names(absent)}"
        same = near is not None and near == _find_same_name(absent[0], self.columns)
        return MLScaleError(
            f"the table has no {named}",
            where=where,
            why=f"its columns are: {_quote_names(list(self.columns)) or 'none'}"
            + (f"; {near!r} is there in another form of Unicode (NFC, NFD)" if same else ""),
            fix=_suggest_override(where, near) or _describe_fix(where, named),
        )


def _find_same_name(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that is the same in another form of Unicode."""
    return next(
        (item for item in names if unicodedata.normalize("NFC", item) == unicodedata.normalize("NFC", name)), None
    )


def _quote_names(names: Sequence[str]) -> str:
    """Return names in quotes, as they may hold commas and spaces; the first ones of many."""
    return ", ".join(map(repr, names[:_MOST_SHOWN])) + (", …" if len(names) > _MOST_SHOWN else "")


def _build_unreadable_error(name: str, holds: str, where: str) -> MLScaleError:
    numbers = f"write a list as a column each: {name}_1, {name}_2, …" if "list" in holds else "write it as a number"
    return MLScaleError(
        f"the column {name!r} holds {holds}",
        where=where,
        why="a column holds numbers, truth values or texts",
        fix=f"{format_override('data.ignore', [name])}, which leaves it out; or {numbers}",
    )


def _suggest_override(where: str, near: str | None) -> str | None:
    """Return the override that names the nearest column, if the key names columns; else None."""
    if near is None or where not in _COLUMN_KEYS:
        return None
    if "${" in near:
        return f"rename the column {near!r} in the file, without ${{"
    if where == "data.units":
        return f"'{WHERE}={{{near}: <its unit>}}'" if near.isidentifier() else _FIX
    return format_override(where, [near] if where in _LIST_KEYS else near)


def _describe_fix(where: str, named: str) -> str:
    """Return the fix where no column has a similar name."""
    if where in _COLUMN_KEYS:
        return f"{where}={'[<one of these columns>]' if where in _LIST_KEYS else '<one of these columns>'}"
    return f"add the {named}, which the training rows have"


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


def suggest_number_keys(texts: Column) -> str | None:
    """Return the settings that make texts numbers or missing values, for a message: "" where the other texts are too
    many or too long for missing values, None where most are neither numbers nor in another notation."""
    given = [text for text in mark_missing(texts) if isinstance(text, str)]
    others = _list_other_texts(texts)
    notations = [key for text in others if (key := _suggest_notation(text.strip()))]
    if notations and len(others) - len(notations) <= len(given) / 2:
        # `3,942` is a number in both notations: others of the column decide, or the user.
        clear = [_suggest_notation(text.strip()) for text in others if not _IN_BOTH.fullmatch(text.strip())]
        return next(filter(None, clear), _EITHER)
    if not others or len(others) > len(given) / 2:
        return None
    words = list(dict.fromkeys(others))
    return "" if len(words) > _MOST_WORDS or max(map(len, words)) > 20 else format_override("data.missing", words)


def combine_number_keys(
    keys: Mapping[str, str | None], columns: Mapping[str, Column], missing: Sequence[str]
) -> dict[str, str | None]:
    """Return the settings of several columns, with one `data.missing` for all: of two the last one counts. What commas
    are in one column that leaves it open, another column shows.

    Args:
        keys: of each column, as of `suggest_number_keys`.
        columns: by name.
        missing: texts that stand for missing values already.
    """
    shown = [key for key in keys.values() if key in (_THOUSANDS, _DECIMAL)]
    shown += [_THOUSANDS for column in columns.values() if _has_points(column)]
    keys = {name: shown[0] if shown and key == _EITHER else key for name, key in keys.items()}
    names = [name for name, key in keys.items() if key is not None and "data.missing=" in key]
    words = dict.fromkeys((*missing, *(word for name in names for word in _list_other_texts(columns[name]))))
    return {**keys, **dict.fromkeys(names, format_override("data.missing", list(words)))}


def _has_points(column: Column) -> bool:
    """Return whether a number of the column has a decimal point."""
    if isinstance(column, np.ndarray):
        return bool((np.isfinite(column) & (column != np.floor(column))).any())
    return any(text is not None and re.fullmatch(r"[+-]?\d*\.\d+", text.strip()) for text in column)


def _list_other_texts(texts: Column) -> list[str]:
    """Return the texts that are neither numbers nor missing; truth values among other texts are names."""
    given = (text for text in mark_missing(texts) if isinstance(text, str))
    return [text for text in given if parse_number(text) is None or text.strip().lower() in ("true", "false")]


def _suggest_notation(text: str) -> str:
    """Return the setting by which a text is a number; "" for none."""
    if (match := _GROUPED.fullmatch(text)) is not None:
        return format_override("data.thousands", match[1])
    return _DECIMAL if _DECIMAL_COMMA.fullmatch(text) else ""


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


def are_codes(texts: Texts) -> bool:
    """Return True if texts that read as numbers are names, such as postcodes: digits, some with a leading zero."""
    digits = [text.strip() for text in texts if text is not None and parse_number(text) is not None]
    return any(len(text) > 1 and text[0] == "0" for text in digits) and all(text.isdecimal() for text in digits)


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


WHERE = "data.units"
_FIX = "data.units=units.csv, a file with a line `column,unit` for each; any name can be in it"


def read_column_units(units: Mapping[Any, object] | str | None) -> dict[str, str]:
    """Return the unit of each column by its name.

    Args:
        units: by name; or a CSV file of column,unit lines.

    Raises:
        MLScaleError: the file can't be read.
    """
    if isinstance(units, str):
        return _read_units_file(units)
    # Hydra and YAML read some names as other types.
    return {
        str(name).lower() if isinstance(name, bool) or name is None else str(name): str(unit)
        for name, unit in (units or {}).items()
    }


def _read_units_file(path: str) -> dict[str, str]:
    try:
        # utf-8-sig: spreadsheets write a byte order mark, which would be a part of the first name.
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
        lines = [line for line in csv.reader(text.splitlines()) if line]
        if wrong := next((line for line in lines if len(line) != 2), None):
            raise ValueError(f"the line {','.join(wrong)!r} is not column,unit")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise MLScaleError(f"the units {path!r} can't be read", where=WHERE, why=why, fix=_FIX) from error
    # A heading is recognised by its first word, as no other line can be: its column would need that name.
    return dict(lines[1:] if lines and lines[0] == ["column", "unit"] else lines)
