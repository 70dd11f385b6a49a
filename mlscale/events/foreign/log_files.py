"""The files of another server's log: found by a path, a folder or a glob, and read in batches of bounded size."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shlex
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlscale.config.names.suggest import find_nearest, format_override
from mlscale.data.shards.system_files import match_paths
from mlscale.data.table_parsing import table_form
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".log")
_BATCH = 5_000  # rows
_TORN, _NO_OBJECT = "not as many values as the heading has columns", "not an object of JSON"
_CUT = ", or the compressed file is cut short"
_LONGEST_LINE = 16 << 20  # characters of a line of JSON, or of a value of CSV


class JsonArrayError(Exception):
    """A file begins as an array: read as lines, each of them would be unreadable for a reason that doesn't help."""


class RecordPlace(NamedTuple):
    """Where a record is; as text `line 13 of log.csv`, for which the file is read up to it.

    Attributes:
        file: which it is from.
        number: its place among the records, from 1 on.
        sample: which of the request, from 0 on; None if a record is one sample.
    """

    file: Path
    number: int
    sample: int | None = None

    @property
    def id(self) -> str:
        """The id of a record that has none: it stays the same, for monitors have stored it."""
        return f"{self.file.name}, row {self.number:,}{'' if self.sample is None else f', sample {self.sample}'}"

    def __str__(self) -> str:
        if self.sample is not None:
            return f"sample {self.sample} of {self._replace(sample=None)}"
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
    why_unreadable: str


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
        # A server's own messages have the ending of BentoML's lines of JSON.
        if files := [file for file in files if _get_format(file) != ".log"] or files:
            return files
        raise _make_absent_error(path, path, f"the folder has no file that ends in {', '.join(FORMATS[:4])}")
    if files := [match for text in match_paths(str(path)) if (match := Path(text)).is_file()]:
        return files
    # The nearest folder that exists: what is in it shows where the path goes wrong.
    folder = next(parent for parent in path.parents if parent.is_dir())
    raise _make_absent_error(path, folder, "no such file or folder")


def list_skipped_files(path: Path) -> list[str]:
    """Return the files of a folder that look like logs and are not read, such as `app.jsonl.zst`, sorted by name."""
    if not path.is_dir():
        return []
    others = {entry for entry in path.iterdir() if entry.is_file()} - {*find_log_files(path)}
    return sorted(entry.name for entry in others if any(ending in entry.name.lower() for ending in FORMATS))


def iterate_records(file: Path, columns: Sequence[str] | None = None) -> Iterator[RecordBatch]:
    """Yield the records of a file in batches.

    Args:
        columns: the first parts of the paths that are needed; all by default.

    Raises:
        MLScaleError: the file can't be read, or is of an unknown format.
    """
    ending = _get_format(file)
    if not ending:
        fix = "events=<a file that ends in .parquet, .csv, .tsv, .jsonl or .log>"
        raise MLScaleError(f"can't read {file.name} as events", where=str(file), why="unknown ending", fix=fix)
    reader = {".parquet": _read_parquet, ".csv": _read_csv, ".tsv": _read_csv}.get(ending, _read_json_lines)
    why = (_TORN if reader is _read_csv else _NO_OBJECT) + (_CUT if file.suffix.lower() == ".gz" else "")
    try:
        records, first = _end_where_cut(reader(file, columns)), 1
        while batch := list(islice(records, _BATCH)):
            yield RecordBatch(file, first, batch, why)
            first += len(batch)
    except JsonArrayError:
        # Another name in any case: `jq … a.jsonl > a.jsonl` would empty the log.
        lines = shlex.quote(str(file.with_name(f"{file.name.partition('.')[0]}-lines.jsonl")))
        read = "gzip -dc {} | jq -c '.[]'" if file.suffix.lower() == ".gz" else "jq -c '.[]' {}"
        raise MLScaleError(
            f"{file.name} is an array of JSON, not an object on each line",
            where=str(file),
            fix=f"{read.format(shlex.quote(str(file)))} > {lines}",
        ) from None
    except (OSError, ValueError, csv.Error, zlib.error) as error:  # pyarrow's errors are ValueErrors
        raise MLScaleError(
            f"can't read {file.name} as events",
            where=str(file),
            why=" ".join(str(error).split())[:300],
            fix=table_form.suggest_conversion(file, error) or "events=<other files>, or write it again",
        ) from error


def _end_where_cut(records: Iterator[dict[str, Any] | None]) -> Iterator[dict[str, Any] | None]:
    """Yield the records; where a compressed file ends early, as one that is being rotated, one that can't be read."""
    try:
        yield from records
    except EOFError:
        yield None


def _get_format(file: Path) -> str:
    """Return the ending that decides how a file is read; '' for an unknown one."""
    ending = table_form.find_ending(file.name)
    return ending if ending in FORMATS else ""


def _read_parquet(file: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any] | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Row groups may be of any size: batches bound the memory.
    with pq.ParquetFile(file) as source:
        wanted = [name for name in source.schema_arrow.names if _is_needed(name, columns)]
        for batch in source.iter_batches(_BATCH, columns=wanted):
            fields = [field.with_type(_choose_type(field.type)) for field in batch.schema]
            yield from pa.Table.from_batches([batch]).cast(pa.schema(fields), safe=False).to_pylist()


def _choose_type(kind: pa.DataType) -> pa.DataType:
    """Return the type as which values are read: Python has no nanoseconds, and models take floats, not decimals."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_choose_type(field.type)) for field in kind])
    return pa.float64() if pa.types.is_decimal(kind) else kind


def _read_csv(file: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any] | None]:
    with contextlib.suppress(EOFError):  # cut short: what is there is read
        table_form.raise_for_encoding(file)
    # The usual limit of a value is less than a document; without one a lost quote would read the file into memory.
    csv.field_size_limit(_LONGEST_LINE)
    with _open_text(file) as text:
        rows = csv.reader(text, delimiter=table_form.find_separator(file))
        names = next(rows, None)
        if names is None:
            raise ValueError("it is empty")
        needed = [(index, name) for index, name in enumerate(names) if _is_needed(name, columns)]
        # Values stay texts: 007 may be a name, and each column is read by what the model makes of it.
        for row in filter(None, rows):
            # The last line may be one that is being written: it must not hide all others.
            yield {name: row[index] or None for index, name in needed} if len(row) == len(names) else None


def _read_json_lines(file: Path, _columns: Sequence[str] | None) -> Iterator[dict[str, Any] | None]:
    with _open_text(file) as text:
        # Not `for line in text`, which would read a line of any length into memory.
        for number in count():
            line = text.readline(_LONGEST_LINE)
            if not line:
                return
            if not number and line.lstrip().startswith("["):
                raise JsonArrayError
            # A blank line, such as the last one, is not a record.
            if line.strip():
                yield _parse_line(line)


@contextlib.contextmanager
def _open_text(file: Path) -> Iterator[io.TextIOWrapper]:
    # A last character that is still being written is replaced.
    with table_form.open_bytes(file) as source, io.TextIOWrapper(source, "utf-8-sig", "replace", newline="") as text:
        yield text


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    # A list or a number has no columns.
    return value if isinstance(value, dict) else None


def _is_needed(name: str, paths: Sequence[str] | None) -> bool:
    """Return True for a column that one of these paths begins with; a name of pandas' flattened columns has dots."""
    return paths is None or any(path == name or path.startswith(f"{name}.") for path in paths)


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
