"""The character that divides the columns of a CSV file: a semicolon where commas are decimal points, as in Germany."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from mlscale.data.table_parsing.text_encoding import open_bytes
from mlscale.errors import MLScaleError

_OTHERS = (";", "\t", "|", ",")
_HEAD = 64 << 10  # bytes that are looked at
_LEAST_ROWS = 0.5  # share of rows that must have as many columns as the heading


def get_separator(name: str) -> str:
    """Return the separator that the ending of a file's name promises: a tab for `.tsv`, else a comma."""
    return "\t" if name.lower().removesuffix(".gz").endswith(".tsv") else ","


def raise_for_separator(path: Path, where: str) -> None:
    """Raise if another character divides the columns of a CSV or TSV file than its ending promises.

    Raises:
        MLScaleError: it does; where commas are in numbers or in the heading, no parser would say so itself.
        OSError: the file can't be read.
    """
    other = _find_other_separator(_read_head(path), get_separator(path.name))
    if other is not None:
        raise MLScaleError(
            f"{path.name} divides its columns by {other!r}",
            where=where,
            why="columns of a .csv file are divided by commas, those of a .tsv file by tabs",
            fix="write it again with commas (and points in numbers), or as Parquet; a file with tabs is called .tsv",
        )


def _read_head(path: Path) -> str:
    """Return the first lines of a file, without one that is cut off."""
    with open_bytes(path) as file:
        head = file.read(_HEAD)
    # The separators are the same in all encodings that a spreadsheet writes, so that a wrong one does no harm here.
    text = head.decode("utf-8-sig", errors="replace")
    return text[: text.rfind("\n") + 1] or text if len(head) == _HEAD else text


def _find_other_separator(text: str, expected: str) -> str | None:
    """Return the character that divides rows better than the expected one; None where that one does it best."""
    best, other = _rate_separator(text, expected), None
    for mark in _OTHERS:
        share, columns = _rate_separator(text, mark)
        if columns > 1 and share >= _LEAST_ROWS and (share, columns) > best:
            best, other = (share, columns), mark
    return other


def _rate_separator(text: str, mark: str) -> tuple[float, int]:
    """Return the share of rows with as many columns as the heading, 0 where it has only one, and that number."""
    try:
        counts = [len(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if row]
    except csv.Error:
        return 0.0, 1
    columns = counts[0] if counts else 1
    return (counts.count(columns) / len(counts) if columns > 1 else 0.0), columns
