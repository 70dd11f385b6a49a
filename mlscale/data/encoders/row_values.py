"""The values of a single row: what each column does to its features, and the errors of a row that can't be used."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Any, NamedTuple

_MAX_COMPARED = 200
"""Keys of a row that are compared with the name of an absent column."""


class RowStep(NamedTuple):
    """What a column does to the features of a row.

    Args:
        column: for values that are not as usual.
        name: of the column.
        at: its first feature.
        mean, std: of numbers.
        low, high: the limits of numbers.
        fill: the features of a missing number.
        positions: the feature of each category; None for numbers.
    """

    column: Any
    name: str
    at: int
    mean: float
    std: float
    low: float
    high: float
    fill: array[float]
    positions: Mapping[str, int] | None


_JSON_KINDS = {
    "dict": "an object",
    "list": "a list",
    "tuple": "a list",
    "str": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "a truth value",
    "NoneType": "null",
}


def name_kind(value: object) -> str:
    """Return the kind of a value in the words of JSON, such as 'a list'."""
    name = type(value).__name__
    return _JSON_KINDS.get(name, f"of the type {name}")


def build_no_row_error(raw: object) -> ValueError:
    return ValueError(f"it is {name_kind(raw)}, and the model takes rows with named columns")


def is_utf8(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def describe_absent_column(row: Mapping[str, object], name: str) -> str:
    # Of the first keys alone: a comparison takes microseconds, and a request may have thousands of keys.
    near = get_close_matches(name, map(str, islice(row, _MAX_COMPARED)), 1)
    hint = f"; is {near[0]!r} the same?" if near else ""
    return f"it lacks the column {name!r} (null for a missing value){hint}"
