"""The columns of a table: numbers, standardised, and texts, a feature for each category.

A column is fitted to its training values, as numbers or as categories, or refused with the reason.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.config.names.suggest import format_override
from mlscale.data.encoders.encoder import describe_kind, describe_no_number
from mlscale.data.table_parsing.columns import (
    MISSING_TEXTS,
    Column,
    Numbers,
    Texts,
    are_codes,
    format_number_text,
    format_texts,
    mark_missing,
    parse_number,
    separate_numbers,
    suggest_number_keys,
)
from mlscale.data.table_parsing.hold_out import parse_time
from mlscale.data.table_parsing.table_form import USUAL_FORM, TableForm
from mlscale.errors import MLScaleError

_LARGEST, _LARGEST_FEATURE = sys.float_info.max, float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: (value - mean) / std; a missing value becomes the training median.

    Args:
        name: of the column.
        median: of the training values, in the column's own units, as are the next four.
        mean: of the training values, once missing ones are filled in.
        std: their standard deviation, 1 where they are all the same.
        minimum: of the training values.
        maximum: of the training values.
        indicator: a second feature is 1 where a value was missing: in training some were.
        unit: of the values, such as mm; empty where none is stated.
        form: how raw values are written; the encoder's.
    """

    type: ClassVar[str] = "number"
    name: str
    median: float
    mean: float
    std: float
    minimum: float
    maximum: float
    indicator: bool
    unit: str = ""
    form: TableForm = USUAL_FORM

    @classmethod
    def fit(cls, name: str, values: Numbers, unit: str = "") -> NumberColumn:
        """Return the column of training values, float64 (n,), NaN where one is missing; not all are."""
        missing = np.isnan(values)
        present = values[~missing]
        median = float(np.median(present))
        filled = np.where(missing, median, values)
        std = float(filled.std())
        # A constant's deviation may come out as rounding noise instead of 0.
        flat = std <= 1e-12 * max(1.0, float(np.abs(filled).max()))
        return cls(
            name,
            median,
            float(filled.mean()),
            1.0 if flat else std,
            float(present.min()),
            float(present.max()),
            bool(missing.any()),
            unit,
        )

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest value of which a model can be given the feature, a float32."""
        reach = self.std * _LARGEST_FEATURE
        return max(self.mean - reach, -_LARGEST), min(self.mean + reach, _LARGEST)

    def separate_values(self, values: Column) -> tuple[Numbers, dict[int, str]]:
        """Return the numbers of a column of any split or file, float64 (n,), NaN for a missing or bad value; and the
        reason of each bad one, by its row."""
        numbers, wrong = separate_numbers(mark_missing(values))
        reasons = {row: describe_no_number(self.name, text) for row, text in wrong.items()}
        low, high = self.limits
        for row in np.flatnonzero((numbers < low) | (numbers > high)).tolist():
            reasons[row] = self.describe_unusable(float(numbers[row]))
            numbers[row] = np.nan
        return numbers, reasons

    def describe_unusable(self, value: float) -> str:
        """Return the reason of a sample whose value is infinite, or beyond the limits."""
        if math.isinf(value):
            return f"{self.name} is infinite, not a finite number"
        training = f"{self.minimum:g} to {self.maximum:g} in training"
        return f"{self.name} is {value:g}, and {training}: float32, in which models compute, does not reach so far"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return (self.name, f"{self.name} is missing") if self.indicator else (self.name,)

    def describe_schema(self) -> dict[str, Any]:
        """Return what a client has to know of the column."""
        ranges = {"minimum": self.minimum, "maximum": self.maximum, "median": self.median}
        return {
            "name": self.name,
            "type": "number",
            "may_be_missing": self.indicator,
            **ranges,
            **({"unit": self.unit} if self.unit else {}),
        }

    def to_document(self) -> dict[str, Any]:
        """Return the column as JSON values."""
        return {"type": self.type, **{key: value for key, value in asdict(self).items() if key != "form"}}

    @classmethod
    def parse_document(cls, document: Mapping[str, Any]) -> NumberColumn:
        """Return the column of a document."""
        numbers = {name: float(document[name]) for name in ("median", "mean", "std", "minimum", "maximum")}
        if not all(map(math.isfinite, numbers.values())) or numbers["std"] <= 0:
            raise ValueError(f"the column {document['name']!r} has the statistics {numbers}")
        name, unit = str(document["name"]), str(document.get("unit", ""))
        return cls(name=name, indicator=bool(document["indicator"]), unit=unit, form=USUAL_FORM, **numbers)

    def encode_values(self, values: Numbers) -> NDArray[np.float64]:
        """Return the features of values, float64 (n, 1 or 2)."""
        missing = np.isnan(values)
        scaled = (np.where(missing, self.median, values) - self.mean) / self.std
        features: NDArray[np.float64] = np.stack([scaled, missing.astype(np.float64)], axis=1)
        return features[:, : 1 + self.indicator]

    def read_value(self, value: object) -> float:
        """Return a value of a row, a number or a text, as a number; NaN for a missing one.

        Raises:
            ValueError: it is not a finite number, or one beyond the limits.
        """
        if isinstance(value, str):
            value = self.form.clean_text(value)
        if value is None:
            return math.nan
        if isinstance(value, str):
            if value in MISSING_TEXTS:
                return math.nan
            number = parse_number(value)
            if number is None or math.isinf(number):
                raise ValueError(describe_no_number(self.name, value))
        else:
            number = convert_number(value)
            if number is None:
                raise ValueError(describe_kind(self.name, value, "a number"))
        low, high = self.limits
        # NaN is in no range, and is a missing value.
        if number < low or number > high:
            raise ValueError(self.describe_unusable(number))
        return number


@dataclass(frozen=True)
class CategoryColumn:
    """A column of texts: a feature for each text that training has, 1 where a row has it. Others are all zeros.

    Args:
        name: of the column.
        values: the texts, sorted; a missing value is one of them, the empty text, where training has it.
        of_numbers: training has numbers that name categories, such as postcodes: 07 and 7.0 are the same one.
        form: how raw values are written; the encoder's.
    """

    type: ClassVar[str] = "category"
    name: str
    values: tuple[str, ...]
    of_numbers: bool
    form: TableForm = USUAL_FORM

    @classmethod
    def fit(cls, name: str, values: Column) -> CategoryColumn:
        """Return the column of training values, None or NaN where one is missing."""
        texts = format_texts(mark_missing(values))
        categories = {text or "" for text in texts}
        return cls(name, tuple(sorted(categories)), isinstance(values, np.ndarray))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(f"{self.name} = {value}" if value else f"{self.name} is missing" for value in self.values)

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The position of each category among them."""
        return {value: position for position, value in enumerate(self.values)}

    @cached_property
    def unknown_text(self) -> str:
        """A text that is not a category."""
        text = "\ufffd"
        while text in self.positions:
            text += "\ufffd"
        return text

    def describe_schema(self) -> dict[str, Any]:
        """Return what a client has to know of the column."""
        categories = [value for value in self.values if value]
        may_be_missing = len(categories) < len(self.values)
        return {"name": self.name, "type": "category", "may_be_missing": may_be_missing, "categories": categories}

    def to_document(self) -> dict[str, Any]:
        """Return the column as JSON values."""
        return {"type": self.type, "name": self.name, "values": list(self.values), "of_numbers": self.of_numbers}

    @classmethod
    def parse_document(cls, document: Mapping[str, Any]) -> CategoryColumn:
        """Return the column of a document."""
        values = tuple(map(str, document["values"]))
        if len(set(values)) < len(values):
            raise ValueError(f"the column {document['name']!r} has a category twice")
        return cls(str(document["name"]), values, bool(document["of_numbers"]))

    def format_column(self, values: Column) -> Texts:
        """Return values of any split or file, written as training has them, None for a missing one."""
        if isinstance(values, np.ndarray):
            return format_texts(values)
        # As `read_value` does, without a call for each cell.
        absent = MISSING_TEXTS - self.positions.keys()
        given = [None if value in absent else value for value in values]
        return [None if value is None else self.read_value(value) for value in given] if self.of_numbers else given

    def encode_values(self, texts: Texts) -> NDArray[np.float64]:
        """Return the features of values, float64 (n, len(self.values))."""
        indices = np.array([self.positions.get(text or "", -1) for text in texts], np.int64)
        # -1 equals none of them: an unknown value is zeros alone.
        features: NDArray[np.float64] = (indices[:, None] == np.arange(len(self.values))).astype(np.float64)
        return features

    def count_unknown(self, texts: Texts) -> int:
        """Return the number of values that training does not have; a missing one counts as well."""
        return sum((text or "") not in self.positions for text in texts)

    def read_value(self, value: object) -> str:
        """Return a value of a row as training would have written it; the empty text for a missing one.

        Raises:
            ValueError: it is neither a text nor a number.
        """
        if isinstance(value, str) and value not in self.positions:
            value = self.form.clean_text(value)
        if value is None:
            return ""
        if isinstance(value, str):
            # First: an encoder of an earlier version may have a category of this name.
            if value in MISSING_TEXTS and value not in self.positions:
                return ""
            # 07 and 7.0 become 7 where training has numbers.
            number = parse_number(value) if self.of_numbers else None
            return value if number is None else format_number_text(number) or ""
        if isinstance(value, bool | np.bool_) and not self.of_numbers:
            # A CSV of training may have true, True or TRUE, and JSON has but one truth value.
            for form in (text := str(bool(value)), text.lower(), text.upper()):
                if form in self.positions:
                    return form
        number = convert_number(value)
        if number is None:
            raise ValueError(describe_kind(self.name, value, "a text or a number"))
        return format_number_text(number) or ""


TableColumn = NumberColumn | CategoryColumn


def convert_number(value: object) -> float | None:
    """Return a value of JSON or numpy as float, infinite where it is too large for one; None if it is not a number."""
    if not isinstance(value, Real | np.bool_):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


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
        is_few = len(set(texts)) <= min(_MAX_CATEGORIES, len(values) / 2)
        raise MLScaleError(
            f"the column {name!r} holds dates or times",
            where=where,
            why=f"each would be a category of its own, such as {texts[0]!r}, and a later one unknown",
            fix=f"{format_override('data.ignore', [name])}, which leaves it out; or write it as a number, such as "
            f"days\n" + f"{format_override('data.categorical', [name])}, which takes categories all the same" * is_few,
        )
    category = CategoryColumn.fit(name, values)
    # Of fewer than 20 rows most values may differ by chance.
    many = len(category.values) > _MAX_CATEGORIES or (len(values) >= 20 and len(category.values) > len(values) / 2)
    key = suggest_number_keys(values) if texts and not are_codes(texts) else None
    if key is not None:
        other = next(text for text in texts if text is not None and parse_number(text) is None)
        accepted = f"{format_override('data.categorical', [name])}, which takes all of them for categories"
        ignored = f"{format_override('data.ignore', [name])}, which leaves it out"
        # What to do with the texts comes first: a column of numbers is rarely one to leave out.
        ignored = f"write it as numbers alone; or {ignored}" if many else ignored
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
