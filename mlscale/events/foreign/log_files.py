"""The files of another server's log: found by a path, a folder or a glob, and read in batches of bounded size."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlscale.config.names.suggest import find_nearest, format_override
from mlscale.data.shards.system_files import match_paths
from mlscale.data.table_parsing import table_form
from mlscale.errors import MLScaleError

FORMATS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".csv.gz", ".jsonl.gz")
_BATCH = 5_000  # rows
_CSV_BLOCK = 4 << 20  # bytes
_TORN = "not as many values as the heading has columns"
_LONGEST_LINE = 16 << 20  # characters of a line of JSON


class RecordPlace(NamedTuple):
    """Where a record is; as text `line 13 of log.csv`, for which the file is read up to it.

    Attributes:
        file: which it is from.
        number: its place among the records, from 1 on.
    """

    file: Path
    number: int

    @property
    def id(self) -> str:
        """The id of a record that has none: it stays the same, for monitors have stored it."""
        return f"{self.file.name}, row {self.number:,}"

    def __str__(self) -> str:
        if _get_format(self.file) == ".json":  # a log holds JSON Lines under this ending, too
            return f"line {self.number} of {self.file.name}"
        return table_form.name_row(self.file.name, table_form.find_row_number(self.file, self.number))


@dataclass(frozen=True)
class RecordBatch:
    """Records of one file, one after the other.

    Attributes:
        file: which they are from.
        first: the number of the first one, from 1 on; of text files without the heading.
        records: by column; None for a line that can't be read.
        why_unreadable: the reason for such lines, in words.
    """

    file: Path
    first: int
    records: Sequence[dict[str, Any] | None]
    why_unreadable: str = "not an object of JSON"


def find_log_files(path: Path) -> list[Path]:
    """Return the files of a path, which may be a file, a folder or a glob, sorted by name.

    Raises:
        MLScaleError: there are none; it lists what is there.
    """
    if path.is_file():
        return [path]
    # Not the folders below: a monitor keeps its state and its checks in one of them.
    if path.is_dir():
        files = sorted(entry for entry in path.iterdir() if entry.is_file() and _get_format(entry))
        if files:
            return files
        raise _make_absent_error(path, path, f"the folder has no file that ends in {', '.join(FORMATS[:4])}")
    if files := [match for text in match_paths(str(path)) if (match := Path(text)).is_file()]:
        return files
    # The nearest folder that exists: what is in it shows where the path goes wrong.
    folder = next(parent for parent in path.parents if parent.is_dir())
    raise _make_absent_error(path, folder, "no such file or folder")


def iterate_records(file: Path, columns: Sequence[str] | None = None) -> Iterator[RecordBatch]:
    """Yield the records of a file in batches.

    Args:
        columns: the first parts of the paths that are needed; all by default.

    Raises:
        MLScaleError: the file can't be read, or is of an unknown format.
    """
    reader = {".parquet": _iterate_parquet, ".csv": _iterate_csv, ".tsv": _iterate_csv}.get(_get_format(file))
    if not _get_format(file):
        fix = "events=<a file that ends in .parquet, .csv, .tsv or .jsonl>"
        raise MLScaleError(f"can't read {file.name} as events", where=str(file), why="unknown ending", fix=fix)
    try:
        yield from reader(file, columns) if reader else _iterate_json_lines(file)
    except (OSError, ValueError, EOFError) as error:  # pyarrow's errors are ValueErrors
        raise MLScaleError(
            f"can't read {file.name} as events",
            where=str(file),
            why=" ".join(str(error).split())[:300],
            fix=table_form.suggest_conversion(file, error) or "events=<other files>, or write it again",
        ) from error


def _get_format(file: Path) -> str:
    """Return the ending that decides how a file is read, without `.gz`; '' for an unknown one."""
    name = file.name.lower()
    ending = next((ending for ending in sorted(FORMATS, key=len, reverse=True) if name.endswith(ending)), "")
    return ending.removesuffix(".gz")


def _iterate_parquet(file: Path, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Row groups may be of any size: batches bound the memory.
    with pq.ParquetFile(file) as source:
        names = source.schema_arrow.names
        # A name with dots is one of pandas' flattened columns: it is needed where it begins the path.
        wanted = None if columns is None else [name for name in names if _is_needed(name, columns)]
        first = 1
        for batch in source.iter_batches(_BATCH, columns=wanted):
            # Nanoseconds are no times of Python.
            fields = [
                field.with_type(pa.timestamp("us", field.type.tz)) if pa.types.is_timestamp(field.type) else field
                for field in batch.schema
            ]
            table = pa.Table.from_batches([batch]).cast(pa.schema(fields), safe=False)
            yield RecordBatch(file, first, table.to_pylist())
            first += len(batch)


def _iterate_csv(file: Path, columns: Sequence[str] | None) -> Iterator[RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv

    # Before the parser: it can't hand over a torn row whose bytes are not UTF-8, and prints a traceback of its own.
    table_form.raise_for_encoding(file)
    torn: list[int] = []

    def skip_torn_row(row: csv.InvalidRow) -> str:
        torn.append(row.number)
        return "skip"

    # The last line may be one that is being written: it must not hide all others.
    parse = csv.ParseOptions(
        delimiter=table_form.find_separator(file), newlines_in_values=True, invalid_row_handler=skip_torn_row
    )
    # Rows have numbers only without threads.
    read = csv.ReadOptions(block_size=_CSV_BLOCK, use_threads=False)
    with pa.input_stream(str(file), compression="detect") as source, csv.open_csv(source, parse_options=parse) as head:
        names = head.schema.names
    torn.clear()  # of the first block, which is read again
    # As texts: 007 is no number, and each column is read by what the model makes of it.
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
        include_columns=None if columns is None else [name for name in names if _is_needed(name, columns)] or None,
    )
    first = 1
    with (
        pa.input_stream(str(file), compression="detect") as source,
        csv.open_csv(source, read_options=read, parse_options=parse, convert_options=convert) as reader,
    ):
        for batch in reader:
            # A block of bytes may have any number of rows.
            for start in range(0, len(batch), _BATCH):
                rows = _insert_torn_rows(batch.slice(start, _BATCH).to_pylist(), first, torn)
                yield RecordBatch(file, first, rows, _TORN)
                first += len(rows)
        # Those after the last row that can be read.
        if torn:
            yield RecordBatch(file, first, [None] * len(torn), _TORN)


def _insert_torn_rows(rows: list[dict[str, Any]], first: int, torn: list[int]) -> list[dict[str, Any] | None]:
    """Return rows with None at the places of the torn ones among them, which are taken out of `torn`.

    Args:
        rows: that can be read, one after the other.
        first: the number of the first row, from 1 on.
        torn: line numbers of rows that can't, in order; the heading is line 1.
    """
    placed: list[dict[str, Any] | None] = []
    for row in rows:
        while torn and torn[0] - 1 <= first + len(placed):
            placed.append(None)
            del torn[0]
        placed.append(row)
    return placed


def _iterate_json_lines(file: Path) -> Iterator[RecordBatch]:
    open_text = gzip.open if file.suffix == ".gz" else open
    first = 1
    records: list[dict[str, Any] | None] = []
    with open_text(file, "rt", encoding="utf-8", errors="replace") as source:
        # Not `for line in source`, which would read a line of any length into memory.
        while line := source.readline(_LONGEST_LINE):
            # A blank line, such as the last one, is not a record.
            if not line.strip():
                continue
            records.append(_parse_line(line))
            if len(records) == _BATCH:
                yield RecordBatch(file, first, records)
                first, records = first + len(records), []
    if records:
        yield RecordBatch(file, first, records)


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    # A list or a number has no columns.
    return value if isinstance(value, dict) else None


def _is_needed(name: str, paths: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for path in paths)


def _make_absent_error(path: Path, folder: Path, why: str) -> MLScaleError:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    best = find_nearest(path.name, names)
    listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return MLScaleError(
        f"no events at {path}",
        where=f"events={path}",
        why=f"{why}; {folder} has: {listed or 'nothing'}",
        fix=format_override("events", str(folder / best))
        if best
        else "events=<a file .parquet, .csv or .jsonl, a folder of such, or a glob>",
    )
