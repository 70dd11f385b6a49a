"""Read the rows of a Parquet, CSV or JSON file by number."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from mlscale.data.table_parsing.table_files import read_csv_texts
from mlscale.data.table_parsing.table_form import USUAL_FORM, TableForm, find_separator, number_rows, suggest_conversion
from mlscale.errors import MLScaleError
from mlscale.predict.json_table import JsonTable

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
