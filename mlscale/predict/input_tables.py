"""Read tables of inputs, Parquet, CSV and JSON; each row has an image, a path, a text or numbers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.table_parsing.table_files import read_csv_texts
from mlscale.data.table_parsing.table_form import (
    USUAL_FORM,
    TableForm,
    find_separator,
    name_row,
    number_rows,
    suggest_conversion,
)
from mlscale.errors import MLScaleError
from mlscale.export.required_extras import require_extra
from mlscale.predict.input_items import InputItem, choose_scored_column, compute_files_digest
from mlscale.predict.json_table import JsonTable

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_KINDS = ("text", "document")
_MOST_SHOWN = 20


class TableInputs:
    """The rows of Parquet, CSV or JSON files; their keys are line and file, or a column's values.

    Parquet is read one row group at a time; a CSV or JSON file is kept in memory.

    Args:
        paths: of the files, in order.
        member: the column that is scored: bytes of an image (or Hugging Face's {bytes, path}), a path relative to the
            file's folder, or a text. None finds it by its type and name; a table of numbers alone has none.
        key: the column that names rows.
        columns: the features, of a table of numbers; empty for all columns of numbers except the key.
        kind: of the model's encoder. The columns that a 'table' takes are read by `read_rows`, those of a CSV file as
            texts; the texts of a 'text' or 'document' are read as bytes.
        trained_on: the column of texts that the model was trained on, which is scored where the files have it.
        form: how the rows of a 'table' are written.

    Raises:
        MLScaleError: pyarrow is not installed (exit code 5); a file can't be read, or lacks a column.
    """

    def __init__(
        self,
        paths: Sequence[str],
        member: str | None,
        key: str | None,
        columns: Sequence[str],
        kind: str = "",
        trained_on: str | None = None,
        form: TableForm = USUAL_FORM,
    ) -> None:
        require_extra("predict", "pyarrow")
        encoded, self._takes_texts = kind == "table", kind in TEXT_KINDS
        self._paths, self._key = list(paths), key
        self._files = [open_table(path, form if encoded else None) for path in self._paths]
        # The first file's columns apply to all; a column that another file lacks is an error before the first row.
        schema = self._files[0].schema
        self.names: list[str] = schema.names
        for path, file in zip(self._paths, self._files, strict=True):
            if missing := [name for name in (member, key, *columns) if name and name not in file.schema.names]:
                fix = "member=<the column that is scored>, key=<the column of names>, columns=[<features>]"
                raise _build_columns_error(path, missing, file.schema.names, fix)
        self._member = member or (None if columns or encoded else _find_scored_column(schema, key, trained_on))
        if self._takes_texts and self._member is not None:
            for file in self._files:
                file.read_as_bytes(self._member)
        self._features = list(columns) or [name for name in _list_number_columns(schema) if name != key]
        if self._member is None and not self._features and not encoded:
            raise MLScaleError(
                "the table has nothing to score",
                where=f"input={self._paths[0]}",
                why=f"not one column of bytes or text, and none of numbers: {_list_names(schema.names)}",
                fix="\n".join(f"member={name}" for name in schema.names[:2]) or "input=<another file>",
            )
        # Row numbers of each file's first row: a search in them finds the file of a row.
        self._starts = np.cumsum([0, *(file.rows for file in self._files)])
        # Columns that change the predictions or the keys are part of the digest.
        self.digest = compute_files_digest(
            self._paths, (self._member, self._key, encoded or (self._features if not self._member else ()))
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read_items(self, rows: range) -> list[InputItem]:
        return [item for part in self._split_by_file(rows) for item in self._read_file_rows(*part)]

    def read_rows(self, rows: range, names: Sequence[str]) -> tuple[list[str], list[dict[str, Any]]]:
        """Return keys and rows with these columns: numbers, NaN where one is missing, or texts, None where one is.

        Raises:
            MLScaleError: a column does not exist.
        """
        keys: list[str] = []
        result: list[dict[str, Any]] = []
        for number, first, count in self._split_by_file(rows):
            file = self._files[number]
            if missing := [name for name in names if name not in file.schema.names]:
                fix = "give a table with the columns of the training data"
                raise _build_columns_error(self._paths[number], missing, file.schema.names, fix)
            table = file.take(first, count, [*names, *([self._key] if self._key and self._key not in names else [])])
            keys += self._name_rows(table, number, first)
            columns = [
                file.take_values(first, count, name) if isinstance(file, JsonTable) else _list_values(table[name])
                for name in names
            ]
            result += [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        return keys, result

    def _split_by_file(self, rows: range) -> Iterator[tuple[int, int, int]]:
        """Yield the parts of rows that are of one file: its number, the number of its first row, and their count."""
        row = rows.start
        while row < rows.stop:
            number = int(np.searchsorted(self._starts, row, "right")) - 1
            count = min(rows.stop, int(self._starts[number + 1])) - row
            yield number, row - int(self._starts[number]), count
            row += count

    def _name_rows(self, table: Any, number: int, first: int) -> list[str]:
        """Return the keys of rows of a file: of its column of keys, where that has one."""
        start = int(self._starts[number]) + first
        keys = self.format_row_keys(range(start, start + len(table)))
        if not self._key:
            return keys
        values = table[self._key].to_pylist()
        return [key if value is None else str(value) for value, key in zip(values, keys, strict=True)]

    def format_row_keys(self, rows: range) -> list[str]:
        """Return the name of each row by its line: its key without a key column, or if that can't be read."""
        files = np.searchsorted(self._starts, np.arange(rows.start, rows.stop), "right") - 1
        return [
            name_row(Path(self._paths[file]).name, self._files[file].numbers[row - int(self._starts[file])])
            for row, file in zip(rows, files.tolist(), strict=True)
        ]

    def _read_file_rows(self, number: int, first: int, count: int) -> list[InputItem]:
        wanted = [self._member] if self._member else list(self._features)
        try:
            table = self._files[number].take(first, count, [*wanted, *([self._key] if self._key else [])])
        except Exception as error:  # pyarrow's errors share no base; a corrupt row group concerns its own rows only
            why, start = " ".join(str(error).split())[:200], int(self._starts[number]) + first
            names = self.format_row_keys(range(start, start + count))
            return [InputItem(name, b"", error=f"the table is corrupt here: {why}") for name in names]
        keys = self._name_rows(table, number, first)
        if self._member:
            return [
                self._build_item(key, value, number)
                for key, value in zip(keys, table[self._member].to_pylist(), strict=True)
            ]
        matrix = np.stack([_convert_to_float(table[name]) for name in self._features], 1)
        return [InputItem(key, values) for key, values in zip(keys, matrix, strict=True)]

    def _build_item(self, key: str, value: object, number: int) -> InputItem:
        if isinstance(value, dict):  # Hugging Face's images
            value = value.get("bytes") or value.get("path")
        if value is None:
            return InputItem(key, b"", error="the column is empty here")
        # A text that ends like an image file is a path, relative to the table: both can be moved together.
        if isinstance(value, str) and not self._takes_texts and is_image_file(value):
            path = Path(self._paths[number]).parent / value
            try:
                return InputItem(key, path.read_bytes(), value.rpartition(".")[2].lower())
            except OSError as error:
                return InputItem(key, b"", error=f"{value}: {error.strerror}")
        return InputItem(key, value) if isinstance(value, bytes | str) else InputItem(key, str(value))


def _build_columns_error(path: str, missing: Sequence[str], names: Sequence[str], fix: str) -> MLScaleError:
    """Return the error of a table that lacks columns, all of them."""
    nouns = "column" if len(missing) == 1 else "columns"
    return MLScaleError(
        f"the table has no {nouns} {_list_names(missing)}",
        where=f"input={path}",
        why=f"its columns are: {_list_names(names)}",
        fix=fix,
    )


def _list_names(names: Sequence[str]) -> str:
    """Return names in quotes, as they may hold commas and spaces; the first ones of many."""
    return ", ".join(map(repr, names[:_MOST_SHOWN])) + (", …" if len(names) > _MOST_SHOWN else "")


def _list_values(column: pa.ChunkedArray) -> list[Any]:
    """Return a column as numbers, or as texts."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        numbers: list[Any] = _convert_to_float(column).tolist()
        return numbers
    return [None if value is None else str(value) for value in column.to_pylist()]


def _find_scored_column(schema: pa.Schema, key: str | None, trained_on: str | None) -> str | None:
    """Return the column to score; None if there is none.

    It is the one of training, else the one of bytes, else the text column with a usual name, else the only text column.

    Raises:
        MLScaleError: several columns of bytes, or of text with a usual name.
    """
    import pyarrow as pa

    if trained_on in schema.names:
        return trained_on
    fields = [field for field in schema if field.name != key]
    of_bytes = [
        f.name
        for f in fields
        if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type) or pa.types.is_struct(f.type)
    ]
    texts = [f.name for f in fields if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    return choose_scored_column(of_bytes, texts, where="input", fix="member={}")


def _list_number_columns(schema: pa.Schema) -> list[str]:
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return [field.name for field in schema if any(kind(field.type) for kind in kinds)]


def _convert_to_float(column: pa.ChunkedArray) -> Any:
    """Return a column as float64 (n,), NaN where it is empty."""
    import pyarrow as pa

    given = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    return given.cast(pa.float64()).to_numpy(zero_copy_only=False) if hasattr(given, "chunks") else given.to_numpy()


JSON_FILES = (".jsonl", ".ndjson", ".json")


class ParquetTable:
    """A Parquet file; the row group that was read last is cached."""

    def __init__(self, path: str) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        self.schema, self.rows = self._file.schema_arrow, self._file.metadata.num_rows
        self.numbers = range(1, self.rows + 1)
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._lock, self._cached_group = threading.Lock(), (-1, ("",), None)
        self._texts: set[str] = set()

    def take(self, first: int, count: int, columns: list[str]) -> Any:
        """Return rows of some columns (pyarrow)."""
        import pyarrow as pa

        parts, row = [], first
        while row < first + count:
            group = int(np.searchsorted(self._starts, row, "right")) - 1
            until = min(first + count, int(self._starts[group + 1]))
            # A row group usually has many batches, which threads read about in order: without the cache each batch
            # would read its group again. The lock also covers the file, which threads must not share.
            with self._lock:
                if self._cached_group[:2] != (group, tuple(columns)):
                    self._cached_group = (group, tuple(columns), self._file.read_row_group(group, columns))  # type: ignore[assignment]
                table: Any = self._cached_group[2]
            parts.append(table.slice(row - int(self._starts[group]), until - row))
            row = until
        table = pa.concat_tables(parts)
        for position, field in enumerate(table.schema):
            if field.name in self._texts and pa.types.is_string(field.type):
                table = table.set_column(position, field.name, table[field.name].cast(pa.binary()))
            elif field.name in self._texts and pa.types.is_large_string(field.type):
                table = table.set_column(position, field.name, table[field.name].cast(pa.large_binary()))
        return table

    def read_as_bytes(self, column: str) -> None:
        """Take a column of texts as its bytes: those of a file need not be UTF-8."""
        self._texts.add(column)


class CsvTable:
    """A CSV or TSV file, in memory.

    Args:
        path: of the file.
        form: how its values are written, which are read as texts; None finds the types of the columns.
    """

    def __init__(self, path: str, form: TableForm | None) -> None:
        from pyarrow import csv

        self._path, separator = path, find_separator(Path(path), form or USUAL_FORM)
        self._parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
        if form is not None:
            self._table = read_csv_texts(Path(path), form)
        else:
            self._table = csv.read_csv(path, parse_options=self._parse)
        self.schema, self.rows = self._table.schema, self._table.num_rows
        self.numbers = number_rows(Path(path), self.rows, form or USUAL_FORM)

    def take(self, first: int, count: int, columns: list[str]) -> Any:
        """Return rows of some columns (pyarrow)."""
        return self._table.select(columns).slice(first, count)

    def read_as_bytes(self, column: str) -> None:
        """Read a column of texts as its bytes, UTF-8 or not: `NA` and `007` are texts, only an empty one is missing."""
        import pyarrow as pa
        from pyarrow import csv

        convert = csv.ConvertOptions(
            include_columns=[column],
            column_types={column: pa.binary()},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        )
        texts = csv.read_csv(self._path, parse_options=self._parse, convert_options=convert)
        position = self._table.schema.get_field_index(column)
        self._table = self._table.set_column(position, column, texts[column])
        self.schema = self._table.schema


def open_table(path: str, form: TableForm | None = None) -> Any:
    import pyarrow as pa

    try:
        if path.lower().endswith(JSON_FILES):
            return JsonTable(path)
        return ParquetTable(path) if path.lower().endswith(".parquet") else CsvTable(path, form)
    except (pa.ArrowException, OSError, ValueError) as error:
        why = " ".join(str(error).split())[:300]
        fix = suggest_conversion(Path(path), error) or "input=<another file>"
        raise MLScaleError("the table can't be read", where=f"input={path}", why=why, fix=fix) from error
