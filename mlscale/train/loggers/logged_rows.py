"""The rows that were sent to a tracker, so that a resumed run sends the rest: no row twice, none left out."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class LoggedRows:
    """The rows of a run, on the disk before a checkpoint relies on them.

    Args:
        path: of the file, one JSON document a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh: list[str] = []
        self._count = 0  # rows of the run, on the disk or not

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._fresh.append(json.dumps(row))
        self._count += 1

    def save_rows(self) -> int:
        """Write the new rows; returns how many the run has. Where the disk is full they wait in memory."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = self._path.stat().st_size if self._path.exists() else 0
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.writelines(f"{row}\n" for row in self._fresh)
            except OSError:
                os.truncate(self._path, size)  # some of the rows may be there: all will be written again
                raise
            self._fresh.clear()
        return self._count

    def resume_rows(self, count: int) -> list[dict[str, Any]]:
        """Keep the first `count` rows and remove those after the checkpoint; returns the kept ones."""
        lines: list[str] = []
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)[:count]
            self._path.write_text("".join(lines), encoding="utf-8")
        self._count = count
        # A line without a line break was cut off when the process was killed.
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def remove_rows(self) -> None:
        """Remove the rows of an earlier attempt."""
        self._path.unlink(missing_ok=True)
