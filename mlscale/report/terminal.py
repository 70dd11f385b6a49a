"""Text on a terminal: lines that fit its width, and colours where they are wanted."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import shutil
import sys
import textwrap
from typing import TextIO

_UNLIMITED = 10_000  # columns where the output goes to a file or a program, which shall find whole lines
_LEAST_COLUMNS = 28  # of the last column of a line; where less is left, it gets lines of its own
_COLUMN = re.compile(r"(?<=\S) {2,}(?=\S)")  # between two columns
_LABEL = re.compile(r"(\s*[\w-]+: )")  # of a line without columns: 'usage: …'
_COMMENT = "# "
_ERROR_HANDLER = "mlscale_similar_letter"
_SIMILAR = str.maketrans({"─": "-", "│": "|", "…": "...", "–": "-", "→": "->", "×": "x", "·": "-", "±": "+-"})
_COLOURS = {"red": 31, "green": 32, "yellow": 33}


def replace_unprintable_letters(stream: TextIO | None) -> None:
    """Let a stream, such as stdout, write a similar letter or an escape for each that its encoding lacks, which would
    raise an error."""
    codecs.register_error(_ERROR_HANDLER, _replace_letters)
    if isinstance(stream, io.TextIOWrapper):
        # The handler is set before an error of a file descriptor that has become a pipe since the stream was opened.
        with contextlib.suppress(OSError):
            stream.reconfigure(errors=_ERROR_HANDLER)


def _replace_letters(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end].translate(_SIMILAR)
    return letters.encode("ascii", "backslashreplace").decode(), error.end


def get_terminal_width() -> int:
    """Return the terminal's width; practically unlimited where the output goes to a file."""
    return shutil.get_terminal_size(fallback=(_UNLIMITED, 24)).columns


def wrap_text(text: str, width: int | None = None) -> str:
    """Return text whose lines fit the terminal: the last column of a line is continued below its beginning.

    Words are never cut, so that a path or a command stays whole.

    Args:
        text: lines, with two spaces or more between columns.
        width: characters of a line; the terminal's by default.
    """
    columns = width or get_terminal_width()
    return "\n".join(
        part for line in text.split("\n") for part in ([line] if len(line) <= columns else _wrap_line(line, columns))
    )


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Return text in a colour (red, green or yellow) if the stream, by default stdout, is a terminal that shows it.

    The variable NO_COLOR turns colours off: https://no-color.org.
    """
    out = stream or sys.stdout
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not out.isatty()
    return text if is_plain else f"\033[{_COLOURS[colour]}m{text}\033[0m"


def _wrap_line(line: str, columns: int) -> list[str]:
    indent = len(line) - len(line.lstrip())
    gaps = [match.end() for match in _COLUMN.finditer(line)]
    label = _LABEL.match(line)
    # Without columns, the line is continued a little further to the right.
    start = gaps[-1] if gaps else label.end() if label else indent + 2
    head, body = (line[:start], line[start:]) if gaps or label else (line[:indent], line[indent:])
    if " " not in body.strip():
        return [line]
    mark = _COMMENT if body.startswith(_COMMENT) else ""
    first = [] if columns - start >= _LEAST_COLUMNS else [head.rstrip()]
    if first:
        # On a line of its own: too few columns are left after the heading.
        start, head = indent + 4, " " * (indent + 4)
    rest = " " * start + mark
    return [
        *first,
        *textwrap.wrap(
            body.removeprefix(mark),
            columns,
            initial_indent=head + mark,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        ),
    ]
