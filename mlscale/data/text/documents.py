"""Documents of text: a user's files, and the choice of those that are held out.

They are read all at once or part by part: whole text files, and ranges of JSON Lines.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from mlscale.atomic_files import suggest_restore
from mlscale.data.shards.system_files import drop_system_files, match_paths
from mlscale.data.table_parsing.hold_out import check_fraction, hash_to_fraction
from mlscale.errors import MLScaleError

MOST_BYTES = 1 << 30
"""Of all documents together: they are kept in memory."""


class Document(NamedTuple):
    """A text.

    Args:
        name: unique among its kind; decides on which side of a split it falls.
        text: bytes, without a zero byte, which ends a document.
    """

    name: str
    text: bytes


def find_text_files(patterns: str | Sequence[str], *, where: str) -> list[Path]:
    """Return the files that paths, globs or folders name, by path.

    Raises:
        MLScaleError: no file is found.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    # A set, because patterns may overlap.
    paths = sorted({path for pattern in patterns for path in _find_text_files(str(pattern), where)})
    if not paths:
        raise MLScaleError("no text file is named", where=where, fix=f"{where}='texts/*.txt'")
    return paths


def check_total_size(paths: Sequence[Path], *, where: str) -> None:
    """Check that texts fit into memory.

    Raises:
        MLScaleError: they are too large together.
    """
    if (total := sum(path.stat().st_size for path in paths)) > MOST_BYTES:
        raise MLScaleError(
            f"{len(paths)} files of {total:,} bytes are more than {MOST_BYTES:,}",
            where=where,
            why="texts are kept in memory, by every process",
            fix="mlscale prepare data=text_files … data.tokenizer=tokenizer.json to=<folder>, and data=tokens "
            "data.root=<folder> (docs/text.md)",
        )


def is_text_held_out(text: bytes, fraction: float) -> bool:
    """Return whether a document is held out by its content: equal ones stay on one side, whatever others there are."""
    return hash_to_fraction(text.decode("utf-8", "surrogateescape")) < fraction


def hold_out_documents(
    documents: Sequence[Document], fraction: float, *, where: str
) -> tuple[list[Document], list[Document]]:
    """Return training and held-out documents; a document is only split if it is the only one.

    Documents are held out in the order of a hash of their names, as long as they fit into `fraction` of all bytes; the
    smallest one, where none fits. Of a single document the end is held out.

    Raises:
        MLScaleError: the fraction is not between 0 and 1.
    """
    check_fraction(fraction, where=where)
    if len(documents) == 1:
        ((name, text),) = documents
        at = len(text) - int(len(text) * fraction)
        return [Document(name, text[:at])], [Document(name, text[at:])]
    held = choose_held_names({document.name: len(document.text) for document in documents}, fraction)
    return [d for d in documents if d.name not in held], [d for d in documents if d.name in held]


def choose_held_names(sizes: Mapping[str, int], fraction: float) -> set[str]:
    """Return the names of the documents that are held out; see `hold_out_documents`.

    Args:
        sizes: bytes of each document by its name.
        fraction: of all bytes.
    """
    byte_budget = fraction * sum(sizes.values())
    held: set[str] = set()
    # By hash: the same order on every machine, and independent of what documents hold.
    for name in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sizes[name] <= byte_budget:
            held.add(name)
            byte_budget -= sizes[name]
    # Every document is larger than the fraction allows.
    return held or {min(sizes, key=lambda name: sizes[name])}


def compute_documents_digest(documents: Sequence[Document]) -> str:
    """Return the digest of names and texts, in their order."""
    total = hashlib.sha256(b"documents 1")
    for name, text in documents:
        # With the lengths, so that no other division into documents has the same digest.
        total.update(f"{name}\0{len(text)}\0".encode("utf-8", "surrogateescape") + text)
    return total.hexdigest()[:16]


def _find_text_files(pattern: str, where: str) -> Iterator[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        paths = [candidate for candidate in path.rglob("*.txt") if candidate.is_file()]
    else:
        paths = [candidate for name in match_paths(str(path)) if (candidate := Path(name)).is_file()]
    if not paths:
        raise MLScaleError(
            f"text file not found: {pattern!r}",
            where=where,
            why="the folder holds no .txt file" if path.is_dir() else f"looked for {path.absolute()}",
            fix=f"{where}='{path / '**/*' if path.is_dir() else 'texts/*.txt'}'",
        )
    own = drop_system_files([str(path.absolute()) for path in paths], where=where)
    return (Path(path) for path in own)


def read_text_file(path: Path, where: str) -> bytes:
    """Return the bytes of a text file.

    Raises:
        MLScaleError: it can't be read, or is not text.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise MLScaleError(
            f"the text {str(path)!r} cannot be read",
            where=where,
            why=error.strerror or str(error),
            fix=suggest_restore(path),
        ) from error
    if b"\0" in text:
        raise MLScaleError(
            f"the file {str(path)!r} is not text",
            where=where,
            why="it holds zero bytes, which end a document here",
            fix=f"{where}='texts/*.txt', or another glob that leaves it out",
        )
    return text


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
