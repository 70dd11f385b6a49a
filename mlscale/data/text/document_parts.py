"""Documents of files, all of them or part by part: whole text files, and ranges of JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from mlscale.data.text.documents import MOST_BYTES, Document, check_total_size, find_text_files, read_text_file
from mlscale.errors import MLScaleError


@dataclass(frozen=True)
class DocumentPart:
    """A text file, or the lines of a JSON Lines file that start in a range of its bytes.

    Attributes:
        path: the file.
        name: of the file, the same on every machine.
        start: the first byte.
        stop: the byte after the last one; lines that start before it are read to their end.
    """

    path: Path
    name: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def read_all_documents(patterns: str | Sequence[str], column: str | None, *, where: str) -> list[Document]:
    """Return the documents of the files that paths, globs (`docs/**/*.md`) or folders (every `.txt` in them) name.

    Raises:
        MLScaleError: no file is found, they are too large together, or one can't be read or is not text.
    """
    paths = find_text_files(patterns, where=where)
    check_total_size(paths, where=where)
    parts = list_parts(paths, column, MOST_BYTES)
    return [document for part in parts for document in read_documents(part, column, where=where)]


def list_parts(paths: Sequence[Path], column: str | None, part_bytes: int) -> list[DocumentPart]:
    """Return the parts of files, in their order.

    Args:
        paths: of the files.
        column: of the text in JSON Lines; None: each file is a document, which is not divided.
        part_bytes: of a part of JSON Lines, about.
    """
    # From the folder that all files have in common, so that names are the same on every machine; that of a single
    # path would be the file itself.
    root = Path(os.path.commonpath([path.parent for path in paths]))
    parts = []
    for path in paths:
        name, size = path.relative_to(root).as_posix(), path.stat().st_size
        bounds = [0, size] if column is None else [*range(0, size, part_bytes), size]
        parts += [DocumentPart(path, name, start, stop) for start, stop in pairwise(bounds)]
    return parts


def read_documents(part: DocumentPart, column: str | None, *, where: str) -> Iterator[Document]:
    """Yield the documents of a part; a JSON Lines document has the name `file@byte`. Lines without text are left out.

    Raises:
        MLScaleError: the file can't be read, or a line has no such text.
    """
    if column is None:
        yield Document(part.name, read_text_file(part.path, where))
        return
    with part.path.open("rb") as file:
        if part.start:
            # A line that starts before the range is of the part before: the byte in front may be its end.
            file.seek(part.start - 1)
            file.readline()
        while (at := file.tell()) < part.stop and (line := file.readline()):
            if not line.isspace() and (text := _parse_line(line, column, f"{part.path}, byte {at}", where)):
                yield Document(f"{part.name}@{at}", text)


def _parse_line(line: bytes, column: str, position: str, where: str) -> bytes:
    try:
        row = json.loads(line)
        text = row[column]
        if text is not None and not isinstance(text, str):
            raise TypeError(f"it is of the type {type(text).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        keys = list(row)[:8] if "row" in locals() and isinstance(row, dict) else []
        raise MLScaleError(
            f"a line has no text {column!r}",
            where=where,
            why=f"{position}: " + (f"its keys are {', '.join(map(str, keys))}" if keys else f"{error}"),
            fix=f"data.text={keys[0] if keys else '<a key of each line>'}",
        ) from error
    # A null is an empty text. Half of a surrogate pair, which JSON can have, is not text in UTF-8.
    return (text or "").encode("utf-8", "replace")
