"""The fix for a file of text that is not UTF-8: the line that converts it."""

from __future__ import annotations

import shlex
from pathlib import Path


def suggest_conversion(path: Path, error: Exception) -> str | None:
    """Return the command that writes a file as UTF-8, if an error says that it is not; else None."""
    # pyarrow has an error of its own class, whose text alone names the cause.
    if not isinstance(error, UnicodeDecodeError) and "utf8" not in str(error).lower().replace("-", ""):
        return None
    target = path.with_name(f"{path.stem}-utf8{path.suffix}")
    return f"iconv -f latin1 -t utf8 {shlex.quote(str(path))} > {shlex.quote(str(target))}"
