"""The number by which messages name a row of a file: its line, as a text editor counts them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from mlscale.data.table_parsing.column_separator import find_separator
from mlscale.data.table_parsing.text_encoding import open_bytes

_WITH_HEADING = (".csv", ".tsv")
_TEXTS = (*_WITH_HEADING, ".jsonl", ".ndjson")
_CHUNK = 1 << 20  # bytes


def name_row(name: str, number: int) -> str:
    """Return the name of a row: `line 13 of flats.csv`; of a file without lines `flats.parquet:12`."""
    return f"line {number} of {name}" if name.lower().endswith(_TEXTS) else f"{name}:{number}"


def number_rows(path: Path, rows: int) -> Sequence[int]:
    """Return the number of each row: the line on which it begins, where the heading is line 1; from 1 on in files that
    are not text.

    Args:
        path: of the file.
        rows: how many it has, without the heading and empty lines.
    """
    ending = path.suffix.lower()
    first = 2 if ending in _WITH_HEADING else 1
    numbers = range(first, rows + first)
    if ending not in _TEXTS or _count_lines(path) == rows + first - 1:
        return numbers
    # Some lines are empty, or texts in quotes have several.
    with open_bytes(path) as file, io.TextIOWrapper(file, "utf-8-sig", "replace", newline="") as text:
        starts = _find_csv_rows(text, find_separator(path))[1:] if first == 2 else _find_filled_lines(text)
    # Readers may differ on malformed quotes: a number that is near is better than that of another row.
    return starts if len(starts) == rows else numbers


def _count_lines(path: Path) -> int:
    count, last = 0, b"\n"
    with open_bytes(path) as file:
        while chunk := file.read(_CHUNK):
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return count + (last != b"\n")


def _find_csv_rows(file: TextIO, separator: str) -> list[int]:
    """Return the line on which each row begins, the heading's first."""
    reader = csv.reader(file, delimiter=separator)
    starts, before = list[int](), 0
    try:
        for row in reader:
            if row:
                starts.append(before + 1)
            before = reader.line_num
    except csv.Error:  # such as a field over the limit of this reader
        return []
    return starts


def _find_filled_lines(file: TextIO) -> list[int]:
    return [number for number, line in enumerate(file, 1) if line.strip()]
