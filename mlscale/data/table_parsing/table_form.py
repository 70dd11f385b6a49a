"""How a table is written (separator, encoding, numbers, missing values), and how messages number its rows."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, BinaryIO, NamedTuple, Self, TextIO, cast

_CHUNK = 1 << 20  # bytes


class TableForm(NamedTuple):
    """How the values of a table are written, in files and in raw rows.

    Attributes:
        missing: texts that stand for a missing value, besides the usual ones.
        thousands: the mark that divides thousands; None for none.
        encoding: of CSV files of the training data.
        separator: what divides the columns of CSV files; None for what is in the heading most often.
        decimal: the mark of decimals, a point or a comma; next to a comma, points divide thousands.
    """

    missing: tuple[str, ...] = ()
    thousands: str | None = None
    encoding: str = "utf-8"
    separator: str | None = None
    decimal: str = "."

    def clean_text(self, text: str | None) -> str | None:
        """Return a cell whose number has a decimal point and no marks between thousands; None for a missing value."""
        if text is None or text in self.missing:
            return None
        mark = self.thousands or ("." if self.decimal == "," else "")
        if not mark or not _compile_numbers(mark, self.decimal).fullmatch(text):
            return text
        return text.replace(mark, "").replace(self.decimal, ".")

    def describe(self) -> dict[str, Any]:
        """Return what is not as usual in raw rows, as JSON values."""
        settings = {"missing": list(self.missing), "thousands": self.thousands, "separator": self.separator}
        return {key: value for key, value in settings.items() if value} | (
            {"decimal": self.decimal} if self.decimal != "." else {}
        )

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Self:
        """Return the form of `describe`, among other settings."""
        return cls(
            tuple(settings.get("missing", ())),
            settings.get("thousands"),
            separator=settings.get("separator"),
            decimal=settings.get("decimal", "."),
        )


USUAL_FORM = TableForm()


@cache
def _compile_numbers(mark: str, decimal: str) -> re.Pattern[str]:
    """Return the pattern of numbers with decimals, or thousands that a mark divides."""
    whole = rf"((?!0)\d{{1,3}}({re.escape(mark)}\d{{3}})+|\d*)"
    return re.compile(rf"\s*[+-]?{whole}({re.escape(decimal)}\d+)?([eE][+-]?\d+)?\s*")


def find_separator(path: Path, form: TableForm = USUAL_FORM) -> str:
    """Return what divides the columns of a CSV or TSV file: as the form has it, else what the heading has most often.

    Raises:
        OSError: the file can't be read.
    """
    if form.separator is not None:
        return form.separator
    with open_bytes(path) as file:
        heading = file.readline(_CHUNK).decode(form.encoding, errors="replace")
    # Where several are there as often, the one that the file's name promises.
    promised = "\t" if find_ending(path.name) == ".tsv" else ","
    return max(promised, ",", ";", "\t", "|", key=heading.count)


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for its bytes, unpacked where its name ends in `.gz`."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def raise_for_encoding(path: Path) -> None:
    """Raise for bytes that are not UTF-8; a last character that is still being written is not one.

    Raises:
        UnicodeDecodeError: it has such bytes.
        OSError: the file can't be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes(path) as file:
        while chunk := file.read(_CHUNK):
            decoder.decode(chunk)


def suggest_conversion(path: Path, error: Exception, key: str = "") -> str | None:
    """Return the setting `key` with the encoding of a file, or the command that writes it as UTF-8, if an error says
    that it is not; else None."""
    # pyarrow has an error of its own class, whose text alone names the cause; columns of UTF-16 are miscounted.
    is_named = isinstance(error, UnicodeDecodeError) or "utf8" in str(error).lower().replace("-", "")
    if not is_named and "CSV parse error" not in str(error):
        return None
    with open_bytes(path) as file:
        is_wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if not is_named and not is_wide:
        return None
    encoding = "utf-16" if is_wide else "cp1252"
    if key:
        return f"{key}={encoding}"
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    converted = shlex.quote(str(plain.with_name(f"{plain.stem}-utf8{plain.suffix}")))
    if plain != path:
        return f"gzip -dc {shlex.quote(str(path))} | iconv -f {encoding} -t utf8 > {converted}"
    return f"iconv -f {encoding} -t utf8 {shlex.quote(str(path))} > {converted}"


_WITH_HEADING = (".csv", ".tsv")
_ROTATED = re.compile(r"([.-]\d[\d_-]*)?(\.gz)?$")
_TEXTS = (*_WITH_HEADING, ".jsonl", ".ndjson")


def name_row(name: str, number: int) -> str:
    """Return the name of a row: `line 13 of flats.csv`; of a file without lines `flats.parquet:12`."""
    return f"line {number} of {name}" if find_ending(name) in _TEXTS else f"{name}:{number}"


def find_row_number(path: Path, row: int) -> int:
    """Return the number of one row as of `number_rows`, which reads the file only as far.

    Args:
        path: of the file.
        row: its place among the rows, from 1 on, without the heading and empty lines.
    """
    ending = find_ending(path.name)
    heading = int(ending in _WITH_HEADING)
    if ending not in _TEXTS:
        return row
    with open_bytes(path) as file, io.TextIOWrapper(file, "utf-8-sig", "replace", newline="") as text:
        starts = _iterate_csv_rows(text, find_separator(path)) if heading else _iterate_filled_lines(text)
        with contextlib.suppress(EOFError):  # a compressed file may be cut short at this row
            return next(islice(starts, row + heading - 1, None), row + heading)
    return row + heading


def find_ending(name: str) -> str:
    """Return the ending of a file's name in small letters, without `.gz` and what a rotated log has behind it: `.jsonl`
    of `app.jsonl.2.gz` (logrotate), of `app.jsonl-20261202` and of `app.jsonl.2026-12-02_14` (Python's handlers)."""
    return PurePath(_ROTATED.sub("", name.lower())).suffix


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
