"""The encoder of tables: rows of named columns as float32 features, fitted to the training split."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mlscale.config.names.suggest import format_override
from mlscale.data.encoders.encoder import (
    INPUT,
    EncodedSamples,
    Encoder,
    RowStep,
    TensorSpec,
    build_no_row_error,
    describe_absent_columns,
    is_utf8,
)
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn, TableColumn, fit_column
from mlscale.data.table_parsing.columns import DataTable, combine_number_keys, suggest_number_keys
from mlscale.data.table_parsing.table_form import USUAL_FORM, TableForm
from mlscale.errors import MLScaleError, raise_all

NUMBERS, TEXTS = "numbers", "texts"
"""The tensors of packed rows: float64 (n, columns of numbers), and texts (n, columns of categories)."""
_FEW_ROWS = 16


class EncodedTable(NamedTuple):
    """The features of a table.

    Args:
        x: float32 (n, features).
        bad: what is wrong with a row that cannot be used, by its number.
        unknown: values of rows that are categories which the training split does not have, by column.
    """

    x: NDArray[np.float32]
    bad: Mapping[int, str]
    unknown: Mapping[str, int]


@dataclass(frozen=True)
class TableEncoder(Encoder):
    """The columns of a table, in the order of their features.

    Args:
        columns: each with its training statistics or categories.
    """

    kind: ClassVar[str] = "table"
    graph_start: ClassVar[str] = "rows"
    columns: tuple[TableColumn, ...]

    @classmethod
    def fit(
        cls,
        train: DataTable,
        names: Sequence[str],
        categorical: Sequence[str] = (),
        units: Mapping[str, str] | None = None,
        *,
        where: str,
        ignored: Sequence[str] = (),
        form: TableForm = USUAL_FORM,
    ) -> TableEncoder:
        """Return the encoder of training rows.

        Args:
            train: the rows.
            names: the columns to take, in this order.
            categorical: columns to treat as categories although they hold numbers.
            units: of columns of numbers, by name.
            where: the key path of the training split, for errors.
            ignored: the columns that are left out already, for errors.
            form: how raw values are written.

        Raises:
            MLScaleError: a column holds nothing, or nearly as many texts as rows; all such columns together.
        """
        columns: list[TableColumn] = []
        problems: dict[str, MLScaleError] = {}
        for name in names:
            unit = (units or {}).get(name, "")
            try:
                columns.append(fit_column(name, train.get_column(name, where=where), name in categorical, unit, where))
            except MLScaleError as problem:
                problems[name] = problem
        # One override that leaves all of them out: of two that set the same key the last one counts.
        alone = {name: suggest_number_keys(train.columns[name]) for name in problems if name in train.texts}
        keys = combine_number_keys(alone, train.columns, form.missing)
        together = format_override("data.ignore", [*ignored, *(name for name in problems if not keys.get(name))])
        for name, refused in problems.items():
            refused.fix = refused.fix.replace(format_override("data.ignore", [name]), together)
            if (own := alone.get(name)) and (key := keys[name]):
                refused.fix = refused.fix.replace(own, key)
            if not columns and not any(keys.values()):
                refused.fix = "write a column as numbers alone, without units, % or currencies: no other one is left"
        raise_all(list(problems.values()))
        if not columns:
            raise MLScaleError("the table has no column but those that are ignored", where=where, fix="data.ignore=[]")
        return cls(tuple(replace(column, form=form) for column in columns))

    @cached_property
    def _column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(feature for column in self.columns for feature in column.names)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec(INPUT, "float32", (len(self.feature_names),)),)

    @property
    def graph_inputs(self) -> tuple[TensorSpec, ...]:
        return self._packed_tensors

    @cached_property
    def _packed_tensors(self) -> tuple[TensorSpec, ...]:
        numbers, texts = len(self._number_columns), len(self._category_columns)
        # A graph without columns of one kind has no input for them.
        return tuple(
            spec
            for spec in (TensorSpec(NUMBERS, "float64", (numbers,)), TensorSpec(TEXTS, "string", (texts,)))
            if spec.shape[0]
        )

    def describe_raw_input(self) -> dict[str, Any]:
        return {"type": "table", "columns": [column.describe_schema() for column in self.columns]}

    def describe_settings(self) -> dict[str, Any]:
        return {"columns": [column.to_document() for column in self.columns], **self.columns[0].form.describe()}

    @classmethod
    def parse_settings(cls, settings: Mapping[str, Any]) -> Self:
        classes: Mapping[str, type[TableColumn]] = {"number": NumberColumn, "category": CategoryColumn}
        form = TableForm.parse(settings)
        columns = (classes[column["type"]].parse_document(column) for column in settings["columns"])
        return cls(tuple(replace(column, form=form) for column in columns))

    def encode_table(self, table: DataTable, *, where: str) -> EncodedTable:
        """Return the features of a table's rows.

        Raises:
            MLScaleError: a column is missing.
        """
        parts, bad, unknown = [], dict[int, str](), dict[str, int]()
        table.check_columns(self._column_names, where=where)
        for column in self.columns:
            values = table.get_column(column.name, where=where)
            if isinstance(column, NumberColumn):
                numbers, wrong = column.separate_values(values)
                # The first problem of a row stays: it is the one that is reported.
                bad |= wrong | bad
                parts.append(column.encode_values(numbers))
            else:
                texts = column.format_column(values)
                parts.append(column.encode_values(texts))
                if count := column.count_unknown(texts):
                    unknown[column.name] = count
        x = np.concatenate(parts, axis=1).astype(np.float32)
        return EncodedTable(x, bad, unknown)

    def encode_sample(self, raw: Mapping[str, object]) -> dict[str, NDArray[Any]]:
        if not isinstance(raw, Mapping):
            raise build_no_row_error(raw)
        return {INPUT: self.encode_row(raw)}

    def encode_row(self, row: Mapping[str, object]) -> NDArray[np.float32]:
        """Return the features of one row, float32 (features,): bitwise those of `encode_table`, without its arrays.

        Args:
            row: values by column: numbers, truth values, texts, or None where one is missing. Other keys are ignored.

        Raises:
            ValueError: a column is absent, or its value is of another kind; the message names it.
        """
        template, steps = self._row_plan
        features = template[:]
        for column, name, at, mean, std, low, high, fill, positions in steps:
            try:
                value: Any = row[name]
            except KeyError:
                raise ValueError(describe_absent_columns(row, self._column_names)) from None
            kind = value.__class__
            if positions is not None:
                text = value if kind is str and not column.of_numbers else column.read_value(value)
                position = positions.get(text)
                # A text of a missing value is not a category itself.
                if position is None:
                    position = positions.get(column.read_value(text))
                if position is not None:
                    features[position] = 1.0
            # NaN and infinity are not in the range, nor is what float32 does not have.
            elif (kind is float or kind is int) and low <= value <= high:
                features[at] = (value - mean) / std
            elif (number := column.read_value(value)) == number:
                features[at] = (number - mean) / std
            else:
                features[at : at + len(fill)] = fill
        return np.frombuffer(features, np.float32)

    @cached_property
    def _row_plan(self) -> tuple[array[float], list[RowStep]]:
        """The features of a row without any value, and how each column changes them."""
        steps, at = [], 0
        for column in self.columns:
            if isinstance(column, NumberColumn):
                # The same operations on float64, in the same order, as on arrays.
                fill = array("f", [(column.median - column.mean) / column.std, 1.0][: len(column.names)])
                steps.append(RowStep(column, column.name, at, column.mean, column.std, *column.limits, fill, None))
            else:
                positions = {text: at + position for text, position in column.positions.items()}
                steps.append(RowStep(column, column.name, at, 0.0, 1.0, 0.0, 0.0, array("f"), positions))
            at += len(column.names)
        return array("f", bytes(4 * at)), steps

    def pack_samples(self, raw: Sequence[Mapping[str, object]]) -> EncodedSamples:
        """Return rows as the graph takes them (`mlscale.export.graphs.table_graph`): all numbers in one tensor, NaN
        where one is missing; all texts in another, written as training has them."""
        numbers: list[list[float]] = []
        texts: list[list[str]] = []
        bad: dict[int, str] = {}
        for number, row in enumerate(raw):
            try:
                row_numbers, row_texts = self._pack_row(row)
            except ValueError:
                bad[number] = self._describe_bad_row(row)
                row_numbers, row_texts = [0.0] * len(self._number_columns), [""] * len(self._category_columns)
            numbers.append(row_numbers)
            texts.append(row_texts)
        return EncodedSamples({spec.name: self._join_rows(spec, numbers, texts) for spec in self.graph_inputs}, bad)

    def unpack_samples(self, packed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the features of packed rows: by a row where they are few, which is faster, else by a column."""
        numbers = {column.name: packed[NUMBERS][:, at] for at, column in enumerate(self._number_columns)}
        texts = {column.name: packed[TEXTS][:, at].tolist() for at, column in enumerate(self._category_columns)}
        if len(next(iter(packed.values()))) <= _FEW_ROWS and self._are_in_range(numbers):
            values = {name: column.tolist() for name, column in numbers.items()} | texts
            rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
            features = [self.encode_row(row) for row in rows]
            return {INPUT: np.array(features, np.float32).reshape(-1, len(self.feature_names))}
        parts = [
            column.encode_values(numbers[column.name])
            if isinstance(column, NumberColumn)
            else column.encode_values(texts[column.name])
            for column in self.columns
        ]
        # A client that packs by itself may send a number that float32 does not have: it becomes infinite.
        with np.errstate(over="ignore"):
            return {INPUT: np.concatenate(parts, axis=1).astype(np.float32)}

    def find_bad_rows(self, packed: Mapping[str, NDArray[Any]]) -> dict[int, str]:
        bad: dict[int, str] = {}
        if not self._number_columns:
            return bad
        low, high = self._number_limits
        numbers = packed[NUMBERS]
        # NaN, a missing value, is neither.
        rows, columns = np.nonzero((numbers < low) | (numbers > high))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            if row not in bad:
                bad[row] = self._number_columns[column].describe_unusable(float(numbers[row, column]))
        return bad

    def _are_in_range(self, numbers: Mapping[str, NDArray[Any]]) -> bool:
        return not any(
            (numbers[name] < low).any() or (numbers[name] > high).any() for _, name, low, high in self._number_plan
        )

    def _pack_row(self, row: Mapping[str, object]) -> tuple[list[float], list[str]]:
        """Return the numbers and the texts of a row.

        Raises:
            ValueError: it is not a row, lacks a column, or has a value of another kind.
        """
        if not isinstance(row, Mapping):
            raise build_no_row_error(row)
        name = ""
        try:
            numbers: list[float] = []
            for number_column, name, low, high in self._number_plan:
                value: Any = row[name]
                # NaN and infinity are not in the range, nor is what float32 does not have.
                if (value.__class__ is float or value.__class__ is int) and low <= value <= high:
                    numbers.append(value)
                else:
                    numbers.append(number_column.read_value(value))
            texts: list[str] = []
            for column in self._category_columns:
                name = column.name
                value = row[name]
                is_plain = value.__class__ is str and not column.of_numbers and value in column.positions
                text = value if is_plain else column.read_value(value)
                # ONNX Runtime takes UTF-8 alone, and JSON can hold half of a surrogate pair, which is no category.
                texts.append(text if text.isascii() or is_utf8(text) else column.unknown_text)
        except KeyError:
            raise ValueError(describe_absent_columns(row, self._column_names)) from None
        return numbers, texts

    def _describe_bad_row(self, row: Mapping[str, object]) -> str:
        """Return the first problem of a row, in the order of its columns."""
        try:
            self.encode_sample(row)
        except ValueError as error:
            return str(error)
        raise AssertionError("unreachable")

    def _join_rows(self, spec: TensorSpec, numbers: list[list[float]], texts: list[list[str]]) -> NDArray[Any]:
        if spec.name == NUMBERS:
            return np.array(numbers, np.float64).reshape(-1, *spec.shape)
        return np.array(texts, object).reshape(-1, *spec.shape)

    @cached_property
    def _number_plan(self) -> tuple[tuple[NumberColumn, str, float, float], ...]:
        """The columns of numbers, with their names and limits."""
        return tuple((column, column.name, *column.limits) for column in self._number_columns)

    @cached_property
    def _number_limits(self) -> NDArray[np.float64]:
        """The lowest and the highest value of each column of numbers, (2, columns)."""
        return np.array([column.limits for column in self._number_columns]).T

    @cached_property
    def _number_columns(self) -> tuple[NumberColumn, ...]:
        return tuple(column for column in self.columns if isinstance(column, NumberColumn))

    @cached_property
    def _category_columns(self) -> tuple[CategoryColumn, ...]:
        return tuple(column for column in self.columns if isinstance(column, CategoryColumn))
