"""Tables from files: CSV, Parquet and JSON Lines into columns of numbers and texts.

Files are not trusted: their size is bounded while they are read, and errors name the file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.data.shards.system_files import drop_system_files, match_paths
from mlscale.data.table_parsing.columns import MISSING_TEXTS, Column, DataTable, Numbers, are_codes, parse_numbers
from mlscale.data.table_parsing.table_form import (
    USUAL_FORM,
    TableForm,
    find_separator,
    name_row,
    number_rows,
    suggest_conversion,
)
from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_BYTES = 2 << 30
"""Of a split's files, and of what they hold once it is unpacked: tables are kept in memory."""
MOST_COLUMNS = 10_000
_ROWS = 4096
"""Rows that are unpacked at once before the bytes are counted."""
_FORMATS_BY_EXTENSION = {
    ".csv": "CSV",
    ".tsv": "CSV",
    ".parquet": "Parquet",
    ".jsonl": "JSON Lines",
    ".ndjson": "JSON Lines",
}


def read_table(
    paths: str | Sequence[str],
    *,
    where: str,
    texts: Collection[str] = (),
    times: Collection[str] = (),
    form: TableForm | None = None,
) -> DataTable:
    """Return the rows of all files that paths or globs name, in the order of their paths.

    Numbers and truth values become numbers, and so do texts, where all in a column read as such, but for codes such as
    01234. An empty field of a CSV file, NA, NaN and null are missing values.

    Args:
        texts: columns of texts that stay as they are written, since those of another split do not all read as numbers.
        times: columns of dates and times, which become seconds since 1970; they are unreadable otherwise.
        form: see `TableForm`; None for the usual one.

    Raises:
        MLScaleError: pyarrow is not installed (exit code 5); a file is missing, malformed, too large, of another kind
            or with other columns than the first.
    """
    require_package("pyarrow", "table", where)
    files = find_table_files([paths] if isinstance(paths, str) else list(paths), where)
    if (total := sum(path.stat().st_size for path in files)) > MOST_BYTES:
        raise _build_too_large_error(f"{len(files)} file{'s' * (len(files) != 1)}", total, where)
    tables = [read_arrow_table(path, where, form=form) for path in files]
    first = tables[0].column_names
    for path, table in zip(files, tables, strict=True):
        # In any order: columns are joined by name.
        if sorted(table.column_names) != sorted(first):
            differs = sorted(set(table.column_names) ^ set(first))
            raise MLScaleError(
                f"{path.name} has other columns than {files[0].name}",
                where=where,
                why=f"only one of them has: {', '.join(differs[:10])}",
                fix="give files of one table",
            )
    keys = [
        name_row(name, number)
        for name, path, table in zip(_list_unique_names(files), files, tables, strict=True)
        for number in number_rows(path, len(table), form or USUAL_FORM)
    ]
    if not keys:
        raise MLScaleError(
            "the table has no rows",
            where=where,
            why=", ".join(path.name for path in files[:5]),
            fix=f"{where}=<a file with a row for each sample>",
        )
    columns, unreadable = dict[str, Column](), dict[str, str]()
    for name in first:
        parts = [table.column(name) for table in tables]
        column = convert_column(parts, name in texts, name in times, form or USUAL_FORM)
        # Reported where the column is used: it may be left out.
        if isinstance(column, str):
            unreadable[name] = column
        else:
            columns[name] = column
    return DataTable(columns, keys, unreadable)


def require_package(package: str, extra: str, where: str) -> None:
    """Raise if a package of an extra, which reads tables, is not installed.

    Raises:
        MLScaleError: it is not (exit code 5).
    """
    if find_spec(package) is None:
        raise MLScaleError(
            f"{package} is not installed",
            where=where,
            why=f"it reads tables, and comes with the extra {extra!r}",
            fix=f"pip install 'mlscale[{extra}]'",
            exit=Exit.ENVIRONMENT,
        )


def find_table_files(
    patterns: Sequence[str], where: str, extensions: Collection[str] = (), *, takes_folders: bool = False
) -> list[Path]:
    """Return the files that paths or globs name, in the order of their paths.

    Args:
        extensions: those of table files that are taken besides the usual ones.
        takes_folders: the caller reads folders, too, and looks for them first.

    Raises:
        MLScaleError: a pattern has no file, or a file is not a table.
    """
    known = (*_FORMATS_BY_EXTENSION, *extensions)
    paths: list[Path] = []
    for pattern in patterns:
        names = match_paths(str(Path(pattern).expanduser()))
        matches = [Path(name) for name in drop_system_files(names, where=where)]
        if not (matches := [path for path in matches if path.is_file()]):
            raise MLScaleError(
                f"table not found: {pattern!r}",
                where=where,
                why=f"looked for {Path(pattern).expanduser().absolute()}",
                fix=f"{where}=<a .csv, .parquet or .jsonl file, or a glob of such{', or a folder' * takes_folders}>",
            )
        paths += matches
    for path in paths:
        if path.suffix.lower() not in known:
            raise MLScaleError(
                f"{path.name} is not a kind of table that can be read",
                where=where,
                why=f"it ends in {path.suffix or 'nothing'}; tables end in {', '.join(known)}",
                fix="write it as one of these",
            )
    return paths


def read_arrow_table(
    path: Path, where: str, columns: Sequence[str] | None = None, form: TableForm | None = None
) -> Any:
    """Return a pyarrow table; everything in a CSV file is text.

    Args:
        path: of one of `find_table_files`.
        where: the key path that names it, for errors.
        columns: of Parquet files those that are read; None for all.
        form: see `read_table`.

    Raises:
        MLScaleError: the file is malformed or too large.
    """
    import pyarrow as pa

    ending = path.suffix.lower()
    readers: dict[str, Callable[[Path, str], Any]] = {
        "CSV": lambda path, _: read_csv_texts(path, form or USUAL_FORM),
        "Parquet": partial(_read_parquet, columns=columns),
        "JSON Lines": _read_json_lines,
    }
    key = "data.encoding" if form is not None and _FORMATS_BY_EXTENSION[ending] == "CSV" else ""
    try:
        table = readers[_FORMATS_BY_EXTENSION[ending]](path, where)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise MLScaleError(
            f"{path.name} cannot be read as {_FORMATS_BY_EXTENSION[ending]}",
            where=where,
            why=" ".join(str(error).split())[:300],
            fix=suggest_conversion(path, error, key)
            or "write it again, or remove the lines that are named, or those before the heading",
        ) from error
    if table.num_columns > MOST_COLUMNS:
        raise MLScaleError(
            f"{path.name} has {table.num_columns:,} columns",
            where=where,
            why=f"{MOST_COLUMNS:,} at most",
            fix="leave columns out of the file; each row is a sample, each column one of its values",
        )
    if twice := sorted({name for name in table.column_names if table.column_names.count(name) > 1}):
        raise MLScaleError(f"{path.name} has two columns {twice[0]!r}", where=where, fix="rename one of them")
    return table


def read_csv_texts(path: Path, form: TableForm) -> Any:
    """Return the columns of a CSV file as texts."""
    import pyarrow as pa
    from pyarrow import csv

    # A quoted field may hold line ends.
    read = csv.ReadOptions(encoding=form.encoding)
    parse = csv.ParseOptions(delimiter=find_separator(path, form), newlines_in_values=True)
    with csv.open_csv(path, read_options=read, parse_options=parse) as heading:
        # Only the first block is read here.
        names = heading.schema.names
    # As text: pyarrow infers types from the first block, and a later one may hold other values.
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=sorted({*MISSING_TEXTS, *form.missing}),
        strings_can_be_null=True,
    )
    return csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)


def _read_parquet(path: Path, where: str, columns: Sequence[str] | None = None) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    # The size that a file states is that of its encoding, and a billion equal values are encoded in a few bytes.
    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        parts, unpacked = [], 0
        for part in file.iter_batches(batch_size=_ROWS, columns=columns):
            parts.append(part)
            unpacked += part.nbytes
            if unpacked > MOST_BYTES:
                raise _build_too_large_error(f"{path.name}, unpacked,", unpacked, where)
        # Two columns of one name can't be selected by it; they are refused later.
        if columns is None:
            return pa.Table.from_batches(parts, schema=file.schema_arrow)
        schema = pa.schema([file.schema_arrow.field(name) for name in columns])
        return pa.Table.from_batches([part.select(columns) for part in parts], schema=schema)


def _read_json_lines(path: Path, _where: str) -> Any:
    from pyarrow import json

    table = json.read_json(path)
    table.validate(full=True)  # its reader takes any bytes as texts; this says which are not UTF-8
    return table


def convert_column(
    parts: Sequence[Any], as_written: bool, as_times: bool, form: TableForm = USUAL_FORM
) -> Column | str:
    """Return numbers or texts, from the same column of several pyarrow tables; of others the names of their types.

    Args:
        parts: the column of each table.
        as_written: texts stay texts, also where all read as numbers.
        as_times: dates and times become seconds since 1970.
        form: see `TableForm`.
    """
    import pyarrow as pa

    # Dictionaries, such as pandas' categories, hold values of another type.
    kinds = [part.type.value_type if pa.types.is_dictionary(part.type) else part.type for part in parts]
    numeric = [pa.types.is_integer(k) or pa.types.is_floating(k) or pa.types.is_boolean(k) for k in kinds]
    decimal = [pa.types.is_decimal(k) for k in kinds]
    empty = [pa.types.is_null(k) for k in kinds]
    if all(n or d or e for n, d, e in zip(numeric, decimal, empty, strict=True)):
        return np.concatenate([_convert_numbers(part) for part in parts])
    if all(pa.types.is_string(k) or pa.types.is_large_string(k) or e for k, e in zip(kinds, empty, strict=True)):
        texts = [form.clean_text(value) for part in parts for value in part.to_pylist()]
        numbers = None if as_written or are_codes(texts) else parse_numbers(texts)
        return texts if numbers is None else numbers
    if as_times and all(pa.types.is_timestamp(k) or pa.types.is_date(k) for k in kinds):
        return np.concatenate([_convert_times(part) for part in parts])
    return ", ".join(sorted({str(kind) for kind in kinds}))


def _convert_numbers(part: pa.ChunkedArray) -> Numbers:
    import pyarrow as pa

    given = part.cast(pa.int8()) if pa.types.is_boolean(part.type) else part
    # Missing values become NaN, for which the values have to be copied.
    numbers: Numbers = given.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers


def _convert_times(part: pa.ChunkedArray) -> Numbers:
    import pyarrow as pa

    # A date is a number of days; as a timestamp, whatever its unit and its zone, a number of microseconds since 1970.
    zone = part.type.tz if pa.types.is_timestamp(part.type) else None
    moments = part.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64())
    return _convert_numbers(moments) / 1e6


def _list_unique_names(files: Sequence[Path]) -> list[str]:
    """Return the names of files, numbered where files of one name are in several folders."""
    names = [path.name for path in files]
    return names if len(set(names)) == len(names) else [f"{number}/{name}" for number, name in enumerate(names, 1)]


def _build_too_large_error(what: str, total: int, where: str) -> MLScaleError:
    return MLScaleError(
        f"{what} of {total:,} bytes are more than {MOST_BYTES:,}",
        where=where,
        why="tables are kept in memory, by every process",
        fix="take a part of the rows, or write a data module of your own (docs/data.md)",
    )
