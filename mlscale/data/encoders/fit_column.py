"""Fit a column of a table to its training values: as numbers or as categories, or refuse it with the reason."""

from __future__ import annotations

import math

import numpy as np

from mlscale.config.names.suggest import format_override
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn, TableColumn
from mlscale.data.table_parsing.columns import (
    Column,
    Texts,
    are_codes,
    mark_missing,
    parse_number,
    separate_numbers,
    suggest_number_keys,
)
from mlscale.data.table_parsing.hold_out import parse_time
from mlscale.errors import MLScaleError

_MIN_NUMERIC_SHARE = 0.95
"""Part of a column's texts that must read as numbers for the others to be mistakes, and not categories."""
_MAX_CATEGORIES = 256


def fit_column(name: str, given: Column, categorical: bool, unit: str, where: str) -> TableColumn:
    """Return the column of training values.

    Args:
        name: of the column.
        given: its values; None, NaN or a text of a missing value where one is missing.
        categorical: they are categories although they may be numbers or dates.
        unit: of numbers.
        where: the key path of the training split, for errors.

    Raises:
        MLScaleError: it holds nothing, dates, or nearly as many texts as rows.
    """
    values = mark_missing(given)
    if not categorical and (isinstance(values, np.ndarray) or (_are_mostly_numbers(values) and not are_codes(values))):
        numbers, _ = separate_numbers(values)
        if np.isnan(numbers).all():
            raise _build_empty_column_error(name, where)
        # Squares of numbers over 1e154 overflow; a deviation of infinity would make every feature 0.
        with np.errstate(over="ignore", invalid="ignore"):
            column = NumberColumn.fit(name, numbers, unit)
        if not math.isfinite(column.std):
            raise MLScaleError(
                f"the column {name!r} holds numbers that are too large",
                where=where,
                why=f"from {column.minimum:g} to {column.maximum:g}, whose deviation is over the largest float64",
                fix=f"{format_override('data.ignore', [name])}, which leaves it out; or write it in a larger unit",
            )
        return column
    is_text = not categorical and not isinstance(values, np.ndarray)
    texts: Texts = [text for text in values if text is not None] if is_text else []
    if texts and not any(math.isnan(parse_time(text)) for text in texts):
        raise MLScaleError(
            f"the column {name!r} holds dates or times",
            where=where,
            why=f"each would be a category of its own, such as {texts[0]!r}, and a later one unknown",
            fix=f"{format_override('data.ignore', [name])}, which leaves it out; or write it as a number, such as "
            f"days\n{format_override('data.categorical', [name])}, which takes categories all the same",
        )
    category = CategoryColumn.fit(name, values)
    # Of fewer than 20 rows most values may differ by chance.
    many = len(category.values) > _MAX_CATEGORIES or (len(values) >= 20 and len(category.values) > len(values) / 2)
    key = suggest_number_keys(values) if texts and not are_codes(texts) else None
    if key or (key == "" and not many):
        other = next(text for text in texts if text is not None and parse_number(text) is None)
        accepted = f"{format_override('data.categorical', [name])}, which takes all of them for categories"
        ignored = f"{format_override('data.ignore', [name])}, which leaves it out"
        raise MLScaleError(
            f"the column {name!r} holds numbers and other texts",
            where=where,
            why=f"such as {other!r}",
            fix="\n".join(filter(None, (key, accepted * (not many), ignored * (not key)))),
        )
    if not any(category.values):
        raise _build_empty_column_error(name, where)
    if many:
        is_code = not isinstance(values, np.ndarray) and are_codes(values)
        raise MLScaleError(
            f"the column {name!r} has {len(category.values):,} different texts in {len(values):,} rows",
            where=where,
            why=f"each would be a feature, {_MAX_CATEGORIES} at most; it looks like names or numbers of rows"
            + is_code * ", for some have leading zeros",
            fix=f"{format_override('data.ignore', [name])}, which leaves it out; or write it as numbers"
            f"{is_code * ' without leading zeros'} or fewer categories",
        )
    return category


def _build_empty_column_error(name: str, where: str) -> MLScaleError:
    fix = f"{format_override('data.ignore', [name])}, which leaves it out"
    return MLScaleError(f"the column {name!r} holds no value", where=where, fix=fix)


def _are_mostly_numbers(texts: Texts) -> bool:
    given = [text for text in texts if text is not None]
    return bool(given) and sum(parse_number(text) is not None for text in given) >= _MIN_NUMERIC_SHARE * len(given)
