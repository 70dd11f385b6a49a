"""The values of a single row: what each column does to its features, and the errors of a row that can't be used."""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any, NamedTuple

_MAX_COMPARED, _MAX_SHOWN = 200, 20
"""Keys of a row that are compared with the name of an absent column, since a comparison takes microseconds, and a
request may have thousands of keys; the most names in a message."""


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


def describe_kind(name: str, value: object, wanted: str) -> str:
    """Return the reason of a sample whose value is of another kind."""
    return f"{name} is {name_kind(value)}, not {wanted}"


def describe_no_number(name: str, value: str) -> str:
    """Return the reason of a sample whose text in a column of numbers is not one."""
    return f"{name} is {value!r}, no number"


def build_no_row_error(raw: object) -> ValueError:
    return ValueError(f"it is {name_kind(raw)}, and the model takes rows with named columns")


def is_utf8(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def describe_absent_columns(row: Mapping[str, object], columns: Sequence[str]) -> str:
    """Return the reason of a row that lacks some of its columns, in their order; with the key that may be the first."""
    absent = [name for name in columns if name not in row]
    shown = ", ".join(map(repr, absent[:_MAX_SHOWN])) + (", …" if len(absent) > _MAX_SHOWN else "")
    hint = suggest_name(absent[0], [str(key) for key in islice(row, _MAX_COMPARED)])
    return f"it lacks the column{'s' * (len(absent) > 1)} {shown} (null for a missing value){hint and f'; {hint}'}"


def suggest_name(name: str, keys: Sequence[str]) -> str:
    """Return which of some keys may be meant by a name that is not among them, as a part of a message; '' for none."""
    # They look the same, so that to print both would show nothing.
    form = unicodedata.normalize("NFC", name)
    if any(unicodedata.normalize("NFC", key) == form for key in keys):
        sent, trained = ("NFD", "NFC") if name == form else ("NFC", "NFD")
        return f"{name!r} is there in another form of Unicode: write its name in {trained}, not {sent}"
    near = get_close_matches(name, keys, 1)
    return f"is {near[0]!r} the same?" if near else ""
