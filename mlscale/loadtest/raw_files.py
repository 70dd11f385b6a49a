"""Reads raw samples from files: rows of a table, texts, images, and the warm-up requests of a servable.

Samples are kept in memory, so that of large files the first ones are read, which the description states.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.shards.system_files import SkippedFiles, count_skipped, report_skipped
from mlscale.data.table_parsing.table_form import find_separator
from mlscale.errors import MLScaleError
from mlscale.export.warmup import WARMUP, WarmupRequest, read_warmup
from mlscale.export.warmup.warmup_requests import REQUESTS
from mlscale.predict.scored_column import choose_scored_column
from mlscale.report.text import format_count

RawForm = Literal["row", "text", "image", "array"]


def read_raw_files(
    path: Path,
    columns: Sequence[Mapping[str, Any]],
    most_bytes: int,
    *,
    takes_texts: bool = False,
    member: str | None = None,
) -> tuple[str, RawForm, Sequence[Any]]:
    """Return a description, the form of the samples, and the samples: rows by column, texts and images as bytes.

    Args:
        path: a file or a folder.
        columns: of a row, with name and type; others are left out. Empty where they are not known.
        most_bytes: of all samples; the first ones are read.
        takes_texts: of rows the texts in one column are read; others, such as labels, are left out.
        member: that column; None finds it.

    Raises:
        MLScaleError: the column of the texts is not clear.
        OSError, KeyError, TypeError, ValueError: it can't be read, or holds no sample.
    """
    given: Iterable[Any]
    if path.is_dir():
        warmup = next((folder for folder in (path / WARMUP, path) if (folder / REQUESTS).is_file()), None)
        form, given = _read_warmup_samples(warmup) if warmup else _read_folder(path, takes_texts)
    elif path.suffix.lower() in (".csv", ".tsv"):
        form, given = "row", _read_csv(path, columns, takes_texts)
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        form, given = _read_json_lines(path, columns)
    elif is_image_file(path.name):
        form, given = "image", [path.read_bytes()]
    elif path.suffix.lower() in TEXT_SUFFIXES:
        form, given = "text", _read_lines(path)
    else:
        path.stat()  # an absent file is reported as such
        raise ValueError(f"the type {path.suffix or 'of its name'} is not known")
    if takes_texts and form == "row":
        form, given = "text", select_texts(given, path, member)
    raw, is_whole = _take_first(given, most_bytes)
    if not raw:
        raise ValueError("it holds no samples")
    return describe_samples(len(raw), path, None if is_whole else most_bytes), form, raw


def describe_samples(count: int, path: Path, most_bytes: int | None) -> str:
    """Return a description of samples; `most_bytes`: the limit, where they are the first ones of a larger file."""
    if most_bytes is None:
        return f"{format_count(count, 'sample')} of {path.name}"
    return f"the first {format_count(count, 'sample')} of {path.name}, which are {most_bytes / (1 << 20):g} MiB,"


def _take_first(given: Iterable[Any], most_bytes: int) -> tuple[list[Any], bool]:
    """Return the first samples of at most so many bytes, at least one, and whether these are all."""
    raw: list[Any] = []
    size = 0
    for sample in given:
        # Rows are as long as in a request.
        size += len(sample) if isinstance(sample, bytes) else 0 if _is_array(sample) else len(json.dumps(sample))
        if raw and size > most_bytes:
            return raw, False
        raw.append(sample)
    return raw, True


def _is_array(sample: object) -> bool:
    values = sample.values() if isinstance(sample, Mapping) else [sample]
    return any(isinstance(value, np.ndarray) for value in values)


def _read_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            # A file of another system, and of an old Macintosh.
            yield from (part for part in line.splitlines() if part.strip())


def _read_folder(path: Path, takes_texts: bool) -> tuple[RawForm, Iterator[bytes]]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    form: RawForm = "image"
    chosen = [file for file in files if is_image_file(file.name) and not takes_texts]
    # A folder of images may have notes or licences next to them, and one of texts pictures.
    if not chosen:
        form, chosen = "text", [file for file in files if file.suffix.lower() in TEXT_SUFFIXES]
    skipped: dict[str, SkippedFiles] = {}
    for file in sorted({*files} - {*chosen}):
        count_skipped(skipped, f"skipped files that do not end as {form}s do", file.relative_to(path).as_posix())
    report_skipped(skipped, where=str(path))
    return form, (content for file in chosen if (content := file.read_bytes()))


def _read_warmup_samples(folder: Path) -> tuple[RawForm, list[Any]]:
    """Return the samples of a servable's warm-up requests that were answered."""
    try:
        warmup = read_warmup(folder)
    except MLScaleError as error:
        raise ValueError(": ".join(filter(None, (error.what, error.why)))) from error
    answered = [request for request in (warmup.requests if warmup else ()) if request.answer is not None]
    forms = {_get_form(request) for request in answered}
    # A model takes one form of samples, so several are not the requests of one servable.
    if len(forms) != 1:
        raise ValueError("no warm-up request was answered" if not forms else f"several forms of samples: {forms}")
    samples = [request.sample for request in answered]
    return forms.pop(), [sample.encode() if isinstance(sample, str) else sample for sample in samples]


def _get_form(request: WarmupRequest) -> RawForm:
    if _is_array(request.sample):
        return "array"
    if isinstance(request.sample, Mapping):
        return "row"
    if request.file is not None and request.file.suffix != ".txt":
        return "image"
    return "text"


def _read_csv(path: Path, columns: Sequence[Mapping[str, Any]], takes_texts: bool) -> Iterator[dict[str, Any]]:
    # A text is sent as it is written, its bytes too; the cells of a row may be numbers.
    errors = "surrogateescape" if takes_texts else "strict"
    separator = find_separator(path)
    # Spreadsheets write a byte order mark, which would be a part of the first column's name.
    with path.open(encoding="utf-8-sig", errors=errors, newline="") as file:
        reader = csv.DictReader(file, delimiter=separator)
        rows = (
            {
                name: (value or "") if takes_texts else _parse_cell(value)
                for name, value in row.items()
                if name is not None and not isinstance(value, list)
            }
            for row in reader
        )
        yield from _select_columns(rows, columns)


def _read_json_lines(path: Path, columns: Sequence[Mapping[str, Any]]) -> tuple[RawForm, Iterator[Any]]:
    """Return rows, or texts where each line is one."""
    documents = (json.loads(line) for line in _read_lines(path))
    first = next(documents, None)
    kind: type = type(first)
    if kind not in (str, dict, type(None)):
        raise ValueError("each line is to be an object, or each a text")
    same = _require_type(chain([] if first is None else [first], documents), kind)
    if kind is str:
        return "text", (document.encode() for document in same if document)
    return "row", _select_columns(same, columns)


def _require_type(documents: Iterable[Any], kind: type) -> Iterator[Any]:
    for document in documents:
        if type(document) is not kind:
            raise ValueError("each line is to be an object, or each a text")
        yield document


def _select_columns(rows: Iterable[dict[str, Any]], columns: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield rows with the columns of the model alone.

    Raises:
        ValueError: a column is missing.
    """
    for row in rows:
        if missing := [str(column["name"]) for column in columns if column["name"] not in row]:
            names = ", ".join(map(repr, missing))
            raise ValueError(f"it lacks the column{'s' * (len(missing) > 1)} {names}")
        yield {str(column["name"]): _convert_value(row[column["name"]], column) for column in columns} or row


def _parse_cell(text: str | None) -> str | float | None:
    """Return the value of a cell; an empty one is missing."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    # A text such as 007 or nan stays what it is, where the column has texts.
    return number if math.isfinite(number) and format(number, "g") == text else text


def _convert_value(value: object, column: Mapping[str, Any]) -> object:
    """Return a value as its column has it: numbers of texts, and texts of numbers."""
    if column.get("type") == "number" and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value  # the server names it
        return None if math.isnan(number) else number
    if column.get("type") == "category" and isinstance(value, float):
        return format(value, "g")
    return value


TEXT_SUFFIXES = (".txt", ".text", ".md")
_MOST_NAMES = 20


def select_texts(rows: Iterable[Any], path: Path, member: str | None) -> Iterator[bytes]:
    """Yield the texts of rows, of one column; empty ones are left out.

    Args:
        rows: by column.
        path: of the file.
        member: the column; None finds it by its name, or as the only one of texts.

    Raises:
        MLScaleError: the first row has no such column, or several may be meant.
    """
    name = ""
    for row in rows:
        name = name or _find_text_column(row, path, member)
        text = row.get(name)
        if text is not None and text != "":
            yield (text if isinstance(text, str) else str(text)).encode("utf-8", "surrogateescape")


def _find_text_column(row: Mapping[str, Any], path: Path, member: str | None) -> str:
    if member is not None and member in row:
        return member
    known = ", ".join(map(repr, list(row)[:_MOST_NAMES])) + (", …" if len(row) > _MOST_NAMES else "")
    texts = [name for name, value in row.items() if isinstance(value, str) and not _is_number(value)]
    # A file that has one column has no other, whatever its first text is.
    texts = texts or [name for name, value in row.items() if isinstance(value, str)]
    where = f"samples={path}"
    chosen = None if member else choose_scored_column((), texts, where=where, fix="member={}")
    if chosen is None:
        problem = f"no column is called {member!r}" if member else "it is not clear which column has the texts"
        raise MLScaleError(
            "these samples can't be sent",
            where=where,
            why=f"{problem}, and the columns are {known}",
            fix=f"member={texts[0]}" if texts else "samples=<a file with a column of texts>",
        )
    return chosen


def _is_number(text: str) -> bool:
    # Of a CSV file each cell is a text.
    try:
        float(text)
    except ValueError:
        return False
    return True
