"""The number by which messages name a row of a file: its line, as a text editor counts them."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePath
from typing import TextIO

from mlscale.data.table_parsing.table_form import USUAL_FORM, TableForm, find_separator, open_bytes

_WITH_HEADING = (".csv", ".tsv")
_TEXTS = (*_WITH_HEADING, ".jsonl", ".ndjson")
_CHUNK = 1 << 20  # bytes


def name_row(name: str, number: int) -> str:
    """Return the name of a row: `line 13 of flats.csv`; of a file without lines `flats.parquet:12`."""
    return f"line {number} of {name}" if _get_ending(name) in _TEXTS else f"{name}:{number}"


def find_row_number(path: Path, row: int) -> int:
    """Return the number of one row as of `number_rows`, which reads the file only as far.

    Args:
        path: of the file.
        row: its place among the rows, from 1 on, without the heading and empty lines.
    """
    ending = _get_ending(path.name)
    heading = int(ending in _WITH_HEADING)
    if ending not in _TEXTS:
        return row
    with open_bytes(path) as file, io.TextIOWrapper(file, "utf-8-sig", "replace", newline="") as text:
        starts = _iterate_csv_rows(text, find_separator(path)) if heading else _iterate_filled_lines(text)
        return next(islice(starts, row + heading - 1, None), row + heading)


def _get_ending(name: str) -> str:
    """Return the ending of a file's name, without `.gz`."""
    return PurePath(name.lower().removesuffix(".gz")).suffix


def number_rows(path: Path, rows: int, form: TableForm = USUAL_FORM) -> Sequence[int]:
    """Return the number of each row: the line on which it begins, where the heading is line 1; from 1 on in files that
    are not text.

    Args:
        path: of the file.
        rows: how many it has, without the heading and empty lines.
        form: of CSV files.
    """
    ending = path.suffix.lower()
    first = 2 if ending in _WITH_HEADING else 1
    numbers = range(first, rows + first)
    if ending not in _TEXTS or _count_lines(path) == rows + first - 1:
        return numbers
    # Some lines are empty, or texts in quotes have several.
    with open_bytes(path) as file, io.TextIOWrapper(file, "utf-8-sig", "replace", newline="") as text:
        lines = _iterate_csv_rows(text, find_separator(path, form)) if first == 2 else _iterate_filled_lines(text)
        starts = list(lines)[first - 1 :]
    # Readers may differ on malformed quotes: a number that is near is better than that of another row.
    return starts if len(starts) == rows else numbers


def _count_lines(path: Path) -> int:
    count, last = 0, b"\n"
    with open_bytes(path) as file:
        while chunk := file.read(_CHUNK):
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return count + (last != b"\n")


def _iterate_csv_rows(file: TextIO, separator: str) -> Iterator[int]:
    """Yield the line on which each row begins, the heading's first."""
    reader = csv.reader(file, delimiter=separator)
    before = 0
    # An error, such as a field over the limit of this reader, ends it.
    with contextlib.suppress(csv.Error):
        for row in reader:
            if row:
                yield before + 1
            before = reader.line_num


def _iterate_filled_lines(file: TextIO) -> Iterator[int]:
    return (number for number, line in enumerate(file, 1) if line.strip())
