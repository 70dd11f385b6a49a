"""What a tracker was told, row by row, so that a run that goes on tells the rest: no row twice, none left out."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Told:
    """The rows of a run, on the disk before a checkpoint counts on them.

    Args:
        path: one JSON document a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh: list[str] = []
        self._count = 0  # rows of the run, on the disk or not

    def add(self, row: Mapping[str, Any]) -> None:
        """Another row."""
        self._fresh.append(json.dumps(row))
        self._count += 1

    def keep(self) -> int:
        """Write the rows that are not written yet; returns how many there are. Without room they wait in memory."""
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

    def go_on(self, count: int) -> list[dict[str, Any]]:
        """Keep the first `count` rows and forget what came after the checkpoint; returns those."""
        lines: list[str] = []
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)[:count]
            self._path.write_text("".join(lines), encoding="utf-8")
        self._count = count
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def forget(self) -> None:
        """No row of an attempt before this one counts."""
        self._path.unlink(missing_ok=True)
