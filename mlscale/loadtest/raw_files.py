"""Reads raw samples from files: rows of a table, texts, images, and the warm-up requests of a servable."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlscale.data.images.image_files import is_image_file
from mlscale.data.shards.system_files import SkippedFiles, count_skipped, report_skipped

RawForm = Literal["row", "text", "image", "array"]
_WARMUP = ("warmup", "warmup.json")


def read_raw_files(
    path: Path, columns: Sequence[Mapping[str, Any]], most_bytes: int
) -> tuple[str, RawForm, Sequence[Any]]:
    """Return a description, the form of the samples, and the samples: rows by column, texts and images as bytes.

    Args:
        path: a file or a folder.
        columns: of a row, with name and type; others are left out. Empty where they are not known.
        most_bytes: of all samples; the first ones are read.

    Raises:
        OSError, KeyError, TypeError, ValueError: it can't be read, or holds no sample.
    """
    if path.is_dir():
        warmup = next((file for file in (path.joinpath(*_WARMUP), path / _WARMUP[1]) if file.is_file()), None)
        form, raw = _read_warmup(warmup) if warmup else _read_folder(path, most_bytes)
    elif path.suffix.lower() in (".csv", ".tsv"):
        form, raw = "row", _read_csv(path, columns, most_bytes)
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        form, raw = _read_json_lines(path, columns, most_bytes)
    elif is_image_file(path.name):
        form, raw = "image", [path.read_bytes()]
    elif path.suffix.lower() == ".txt":
        lines = path.read_bytes()[:most_bytes].splitlines()
        form, raw = "text", [line for line in lines if line.strip()]
    else:
        path.stat()  # an absent file is reported as such
        raise ValueError(f"the type {path.suffix or 'of its name'} is not known")
    if not raw:
        raise ValueError("it holds no samples")
    return f"{len(raw):,} samples of {path.name}", form, raw


def _read_folder(path: Path, most_bytes: int) -> tuple[RawForm, list[bytes]]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    form: RawForm = "image"
    chosen = [file for file in files if is_image_file(file.name)]
    # A folder of images may have notes or licences next to them.
    if not chosen:
        form, chosen = "text", [file for file in files if file.suffix.lower() == ".txt"]
    skipped: dict[str, SkippedFiles] = {}
    for file in sorted({*files} - {*chosen}):
        count_skipped(skipped, f"skipped files that do not end as {form}s do", file.relative_to(path).as_posix())
    report_skipped(skipped, where=str(path))
    raw: list[bytes] = []
    size = 0
    for file in chosen:
        size += file.stat().st_size
        if raw and size > most_bytes:
            break
        if content := file.read_bytes():
            raw.append(content)
    return form, raw


def _read_warmup(path: Path) -> tuple[RawForm, list[Any]]:
    """Return the samples of a servable's warm-up requests that were answered."""
    requests = json.loads(path.read_text(encoding="utf-8"))["requests"]
    forms, raw = set[RawForm](), []
    for request in requests:
        if "answer" not in request:  # it was refused
            continue
        stated = str(request["form"])
        if stated in ("row", "text"):
            sample = request["sample"]
            forms.add("row" if stated == "row" else "text")
            raw.append(sample.encode() if isinstance(sample, str) else sample)
            continue
        file = path.parent / Path(str(request["file"])).name
        content = file.read_bytes()
        if stated == "file":
            forms.add("text" if file.suffix == ".txt" else "image")
            raw.append(content)
            continue
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        forms.add("array")
        raw.append(loaded if isinstance(loaded, np.ndarray) else dict(loaded))
    # A model takes one form of samples, so several are not the requests of one servable.
    if len(forms) != 1:
        raise ValueError("no warm-up request was answered" if not forms else f"several forms of samples: {forms}")
    return forms.pop(), raw


def _read_csv(path: Path, columns: Sequence[Mapping[str, Any]], most_bytes: int) -> list[dict[str, Any]]:
    # Spreadsheets write a byte order mark, which would be a part of the first column's name.
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        rows = (
            {
                name: _parse_cell(value)
                for name, value in row.items()
                if name is not None and not isinstance(value, list)
            }
            for row in reader
        )
        return list(_select_columns(rows, columns, most_bytes))


def _read_json_lines(path: Path, columns: Sequence[Mapping[str, Any]], most_bytes: int) -> tuple[RawForm, list[Any]]:
    """Return rows, or texts where each line is one."""
    with path.open(encoding="utf-8") as file:
        documents = [json.loads(line) for line in file.read(most_bytes).splitlines() if line.strip()]
    if documents and all(isinstance(document, str) for document in documents):
        return "text", [document.encode() for document in documents if document]
    if not all(isinstance(document, dict) for document in documents):
        raise ValueError("each line is to be an object, or each a text")
    return "row", list(_select_columns(iter(documents), columns, most_bytes))


def _select_columns(
    rows: Iterator[dict[str, Any]], columns: Sequence[Mapping[str, Any]], most_bytes: int
) -> Iterator[dict[str, Any]]:
    """Yield rows with the columns of the model alone.

    Raises:
        ValueError: a column is missing.
    """
    size = 0
    for row in rows:
        if missing := [str(column["name"]) for column in columns if column["name"] not in row]:
            raise ValueError(f"it lacks the column '{missing[0]}'")
        chosen = {str(column["name"]): _convert_value(row[column["name"]], column) for column in columns} or row
        # As long as in a request.
        size += len(json.dumps(chosen))
        if size > most_bytes:
            break
        yield chosen


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
