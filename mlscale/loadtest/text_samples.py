"""Chooses the texts that a model of texts is sent: a column of rows, or files of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.predict.scored_column import choose_scored_column

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
