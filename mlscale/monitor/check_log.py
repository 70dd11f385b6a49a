"""The checks of a monitor over time: one line each in a file next to its state, bounded, and never corrupt for long."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from mlscale.atomic_files import append_line, write_text
from mlscale.errors import MLScaleError
from mlscale.monitor.check_record import CheckRecord

SUFFIX = "-checks.jsonl"
_MOST = 5_000  # lines; about 3 MB
_QUIET = '"alerts": []'  # in the line of a check without alerts


@dataclass(frozen=True)
class CheckLog:
    """The file of a monitor's checks.

    Attributes:
        path: the file; see `locate_check_log`.
        most: lines that it may have.
    """

    path: Path
    most: int = _MOST

    def append_record(self, record: CheckRecord) -> None:
        """Append a check; it is on the disk when this returns. One process at a time: the state's lock.

        Raises:
            MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
        """
        append_line(self.path, _encode_record(record))
        lines = self._read_lines()
        if len(lines) > self.most:
            # Written aside and renamed: a process that is killed here leaves the file as it was.
            write_text(self.path, "".join(line + "\n" for line in thin_out_lines(lines)[-self.most :]))

    def read_records(self) -> list[CheckRecord]:
        """Return the checks, oldest first. Lines that are cut short are left out.

        Raises:
            MLScaleError: a line is corrupt in another way, or of a later format.
        """
        records = []
        for number, line in enumerate(self._read_lines(), 1):
            try:
                document = json.loads(line)
            except ValueError:  # a line that a power cut has cut short
                continue
            if isinstance(document, dict):
                records.append(CheckRecord.parse_document(document, f"{self.path}, line {number}"))
        return records

    def _read_lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            fix = f"chmod u+r {shlex.quote(str(self.path))}"
            raise MLScaleError(
                "can't read the checks of a monitor", where=str(self.path), why=str(error), fix=fix
            ) from error


def locate_check_log(state: Path) -> Path:
    """Return the path of the checks that belong to a state file."""
    return state.with_name(state.stem + SUFFIX)


def thin_out_lines(lines: list[str]) -> list[str]:
    """Return every second line of the older half, and the newer half.

    Repeated, the past becomes coarser the older it is, and its begin is kept. Checks with alerts are not left out.
    """
    half = len(lines) // 2
    return [line for number, line in enumerate(lines[:half]) if number % 2 == 0 or _QUIET not in line] + lines[half:]


def _encode_record(record: CheckRecord) -> str:
    return json.dumps(record.build_document(), ensure_ascii=False, allow_nan=False)
