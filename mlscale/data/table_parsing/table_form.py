"""How a table is written: the separator and the encoding of its file, its numbers and its missing values."""

from __future__ import annotations

import codecs
import gzip
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, cast

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
    whole = rf"(\d{{1,3}}({re.escape(mark)}\d{{3}})+|\d*)"
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
    promised = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
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
