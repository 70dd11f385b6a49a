"""Encoding of a table's columns as float32 rows for a model, fitted to the training split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.tables.columns import Column, DataTable, Numbers, Texts, parse_number
from mlscale.errors import MLScaleError, raise_all

_MIN_NUMERIC_SHARE = 0.95
"""Part of a column's texts that must read as numbers for the others to be mistakes, and not categories."""
_MAX_CATEGORIES = 256


class EncodedFeatures(NamedTuple):
    """The features of a split.

    Args:
        x: float32 (n, features).
        bad: what is wrong with a row that cannot be used, by its number.
        unknown: values of rows that are categories which the training split does not have, by column.
    """

    x: NDArray[np.float32]
    bad: Mapping[int, str]
    unknown: Mapping[str, int]


@dataclass(frozen=True)
class NumericEncoder:
    """A column of numbers: (value - mean) / std; a missing value becomes the training median.

    Args:
        name: of the column.
        median: of the training values, in the column's own units, as are the next two.
        mean: of the training values, once missing ones are filled in.
        std: their standard deviation, 1 where they are all the same.
        indicator: a second feature is 1 where a value was missing: in training some were.
    """

    name: str
    median: float
    mean: float
    std: float
    indicator: bool

    @classmethod
    def fit(cls, name: str, values: Numbers) -> NumericEncoder:
        """Return the encoder of training values, float64 (n,), NaN where one is missing; not all are."""
        missing = np.isnan(values)
        median = float(np.median(values[~missing]))
        filled = np.where(missing, median, values)
        std = float(filled.std())
        # A constant's deviation may come out as rounding noise instead of 0.
        flat = std <= 1e-12 * max(1.0, float(np.abs(filled).max()))
        return cls(name, median, float(filled.mean()), 1.0 if flat else std, bool(missing.any()))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return (self.name, f"{self.name} is missing") if self.indicator else (self.name,)

    def encode_values(self, values: Numbers) -> NDArray[np.float64]:
        """Return the features of values, float64 (n, 1 or 2)."""
        missing = np.isnan(values)
        scaled = (np.where(missing, self.median, values) - self.mean) / self.std
        features: NDArray[np.float64] = np.stack([scaled, missing.astype(np.float64)], axis=1)
        return features[:, : 1 + self.indicator]


@dataclass(frozen=True)
class CategoryEncoder:
    """A column of texts: a feature for each text that training has, 1 where a row has it. Others are all zeros.

    Args:
        name: of the column.
        values: the texts, sorted; a missing value is one of them, the empty text, where training has it.
        of_numbers: training has numbers that name categories, such as postcodes: 07 and 7.0 are the same one.
    """

    name: str
    values: tuple[str, ...]
    of_numbers: bool

    @classmethod
    def fit(cls, name: str, values: Column) -> CategoryEncoder:
        """Return the encoder of training values, None or NaN where one is missing."""
        texts = format_texts(values)
        return cls(name, tuple(sorted({text or "" for text in texts})), isinstance(values, np.ndarray))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(f"{self.name} = {value}" if value else f"{self.name} is missing" for value in self.values)

    def normalise_texts(self, values: Column) -> Texts:
        """Return values of any split or file, written as training has them."""
        if isinstance(values, np.ndarray) or not self.of_numbers:
            return format_texts(values)
        # Written as in training: 07 and 7.0 become 7.
        numbers = [None if value is None else parse_number(value) for value in values]
        return [
            value if number is None else format_texts(np.array([number]))[0]
            for value, number in zip(values, numbers, strict=True)
        ]

    def encode_values(self, texts: Texts) -> NDArray[np.float64]:
        """Return the features of values, float64 (n, len(self.values))."""
        numbers = {value: number for number, value in enumerate(self.values)}
        category_indices = np.array([numbers.get(text or "", -1) for text in texts], np.int64)
        # -1 equals none of them: an unknown value is zeros alone.
        features: NDArray[np.float64] = (category_indices[:, None] == np.arange(len(self.values))).astype(np.float64)
        return features

    def count_unknown(self, texts: Texts) -> int:
        """Return the number of values that training does not have; a missing one counts as well."""
        known = set(self.values)
        return sum((text or "") not in known for text in texts)


class FeatureEncoder:
    """The encoding of every column, fitted to the training split.

    Args:
        train: the training rows.
        names: the columns to take, in this order.
        categorical: columns to treat as categories although they hold numbers.
        where: the key path of the training split, for errors.

    Raises:
        MLScaleError: a column holds nothing, or nearly as many texts as rows; all such columns together.
    """

    def __init__(self, train: DataTable, names: Sequence[str], categorical: Sequence[str], *, where: str) -> None:
        self.columns: list[NumericEncoder | CategoryEncoder] = []
        problems: list[MLScaleError] = []
        for name in names:
            try:
                self.columns.append(_fit_column(name, train.get_column(name, where=where), name in categorical, where))
            except MLScaleError as problem:
                problems.append(problem)
        raise_all(problems)
        self.names = tuple(feature for column in self.columns for feature in column.names)
        if not self.names:
            raise MLScaleError("the table has no column but those that are ignored", where=where, fix="data.ignore=[]")

    def encode_table(self, table: DataTable, *, where: str) -> EncodedFeatures:
        """Return the features of a split's rows.

        Raises:
            MLScaleError: a column is missing.
        """
        parts, bad, unknown = [], dict[int, str](), dict[str, int]()
        for column in self.columns:
            values = table.get_column(column.name, where=where)
            if isinstance(column, NumericEncoder):
                numbers, wrong = separate_numbers(values)
                # The first problem of a row stays: it is the one that is reported.
                bad |= {row: f"{column.name} is {text!r}, no number" for row, text in wrong.items()} | bad
                parts.append(column.encode_values(numbers))
            else:
                texts = column.normalise_texts(values)
                parts.append(column.encode_values(texts))
                if count := column.count_unknown(texts):
                    unknown[column.name] = count
        x = np.concatenate(parts, axis=1).astype(np.float32)
        return EncodedFeatures(x, bad, unknown)


def _fit_column(name: str, values: Column, categorical: bool, where: str) -> NumericEncoder | CategoryEncoder:
    if not categorical and (isinstance(values, np.ndarray) or _are_mostly_numbers(values)):
        numbers, _ = separate_numbers(values)
        if np.isnan(numbers).all():
            raise MLScaleError(
                f"the column {name!r} holds no value", where=where, fix=f"data.ignore=[{name}] leaves it out"
            )
        return NumericEncoder.fit(name, numbers)
    category = CategoryEncoder.fit(name, values)
    if not any(category.values):
        raise MLScaleError(
            f"the column {name!r} holds no value", where=where, fix=f"data.ignore=[{name}] leaves it out"
        )
    # Of fewer than 20 rows most values may differ by chance.
    if len(category.values) > _MAX_CATEGORIES or (len(values) >= 20 and len(category.values) > len(values) / 2):
        raise MLScaleError(
            f"the column {name!r} has {len(category.values):,} different texts in {len(values):,} rows",
            where=where,
            why=f"each would be a feature, {_MAX_CATEGORIES} at most; it looks like names or numbers of rows",
            fix=f"data.ignore=[{name}] leaves it out; or write it as numbers, or as fewer categories",
        )
    return category


def _are_mostly_numbers(texts: Texts) -> bool:
    given = [text for text in texts if text is not None]
    return bool(given) and sum(parse_number(text) is not None for text in given) >= _MIN_NUMERIC_SHARE * len(given)


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
    return [None if v != v else str(int(v)) if float(v).is_integer() else repr(v) for v in values.tolist()]
