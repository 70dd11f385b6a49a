"""The characters of a CSV file: what divides its columns, and the decimal comma that goes with a semicolon."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mlscale.data.table_parsing.columns import NO_VALUE_TEXTS
from mlscale.data.table_parsing.table_form import format_grouped_numbers
from mlscale.data.table_parsing.text_encoding import open_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)

_OTHERS = (";", "\t", "|", ",")
_HEAD = 64 << 10  # bytes that are looked at
_LEAST_ROWS = 0.5  # share of rows that must have as many columns as the heading
_LEAST_NUMBERS = 0.95  # share of a column's texts that must be numbers for the others to be mistakes
# 1234,5 and 1.234,5; a point alone divides thousands only where commas are decimal points.
_NUMBER = r"^\s*[+-]?(\d+|\d{1,3}(\.\d{3})+)?(,\d+)?([eE][+-]?\d+)?\s*$"
_DECIMAL_NUMBER = re.compile(_NUMBER)
_GROUPED = r"^\s*[+-]?[1-9]\d{0,2}(\.\d{3})+\s*$"  # 5.354 and 1.606.356
_BELOW_A_THOUSAND = r"^\s*[+-]?\d{1,3}\s*$"


def find_separator(path: Path, encoding: str = "utf-8-sig") -> str:
    """Return the character that divides the columns of a CSV or TSV file.

    It is the one that the ending of its name promises, a tab for `.tsv`, else a comma, unless another one divides the
    first rows better: spreadsheets write semicolons where commas are decimal points.

    Raises:
        OSError: the file can't be read.
    """
    expected = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    return _find_other_separator(_read_head(path, encoding), expected) or expected


def replace_decimal_commas(rows: Rows, separator: str, *, as_numbers: bool = False) -> Rows:
    """Return rows of texts with points in place of decimal commas, in each column that is numbers but for mistakes, and
    without points between thousands.

    Args:
        rows: of a CSV file; columns that are not texts stay as they are.
        separator: what divides its columns; next to a comma, decimal commas do not occur.
        as_numbers: such a column becomes float64, if it has no mistakes.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if separator == ",":
        return rows
    texts_by_position = {at: rows.column(at) for at, field in enumerate(rows.schema) if pa.types.is_string(field.type)}
    # What stands for no value, whatever a column holds, does not count.
    no_values = pa.array(sorted(NO_VALUE_TEXTS), pa.string())
    present = {
        at: pc.if_else(pc.is_in(texts, no_values), pa.scalar(None, pa.string()), texts)
        for at, texts in texts_by_position.items()
    }
    has_commas = {at for at, texts in present.items() if _has_decimal_commas(texts)}
    for position, texts in texts_by_position.items():
        if position not in has_commas and not _has_grouped_thousands(present[position], is_sure=bool(has_commas)):
            continue
        is_number = pc.match_substring_regex(texts, _NUMBER)
        plain = pc.replace_substring(pc.replace_substring(texts, ".", ""), ",", ".")
        column = pc.if_else(is_number, plain, texts)
        if as_numbers and pc.all(is_number).as_py():
            column = pc.utf8_trim_whitespace(column).cast(pa.float64())
        rows = rows.set_column(position, rows.schema.field(position).name, column)
    return rows


def remove_thousands(rows: pa.Table, mark: str) -> pa.Table:
    """Return rows of texts without the mark that divides the thousands of numbers."""
    import pyarrow.compute as pc

    grouped = f"^{format_grouped_numbers(mark)}$"
    for position, name in enumerate(rows.column_names):
        texts = rows.column(position)
        plain = pc.replace_substring(texts, mark, "")
        rows = rows.set_column(position, name, pc.if_else(pc.match_substring_regex(texts, grouped), plain, texts))
    return rows


def _has_decimal_commas(texts: pa.Array) -> bool:
    """Return whether texts are numbers with decimal commas, but for mistakes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(pc.match_substring(texts, ",")).as_py():
        return False
    is_number = pc.match_substring_regex(texts, _NUMBER)
    return (pc.mean(is_number.cast(pa.int8())).as_py() or 0.0) >= _LEAST_NUMBERS


def _has_grouped_thousands(texts: pa.Array, *, is_sure: bool) -> bool:
    """Return whether texts are whole numbers whose thousands are divided by points: all of a thousand or more are, and
    no others are.

    Args:
        texts: a column without decimal commas.
        is_sure: another column has decimal commas. Otherwise numbers below a thousand, or of a million, must show that
            a point is not a decimal point.
    """
    import pyarrow.compute as pc

    is_grouped, is_small = (pc.match_substring_regex(texts, form) for form in (_GROUPED, _BELOW_A_THOUSAND))
    if not pc.any(is_grouped).as_py() or not pc.all(pc.or_(is_grouped, is_small)).as_py():
        return False
    has_millions = pc.any(pc.match_substring_regex(texts, r"\..*\.")).as_py()
    return bool(is_sure or has_millions or pc.any(is_small).as_py())


def replace_decimal_comma(text: str, separator: str) -> str:
    """Return a cell with a point in place of its decimal comma, if it is such a number."""
    if separator == "," or "," not in text or not _DECIMAL_NUMBER.match(text):
        return text
    return text.replace(".", "").replace(",", ".")


def _read_head(path: Path, encoding: str) -> str:
    """Return the first lines of a file, without one that is cut off."""
    with open_bytes(path) as file:
        head = file.read(_HEAD)
    # The separators are the same in most encodings, so that a wrong one does no harm here.
    text = head.decode(encoding, errors="replace")
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
