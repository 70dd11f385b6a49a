"""Orders for a run of a drill: the step at which it waits for the platform's signal, and the step at which it ends."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mlscale.atomic_files import make_folders, write_json

_ORDER = "order.json"


@dataclass(frozen=True)
class DrillOrder:
    """The task of one attempt.

    Attributes:
        attempt: names the files of its records.
        signal_step: optimizer step after which it waits for the signal; None for two steps after its first checkpoint.
        last_step: optimizer step after which it waits to be killed; None for none.
        awaits_signal: True if it waits for a signal at all.
    """

    attempt: str
    signal_step: int | None = None
    last_step: int | None = None
    awaits_signal: bool = False

    def write_to(self, folder: Path) -> None:
        """Write the order for the next process that records into `folder`."""
        make_folders(folder)
        # By a file: the process that reads it is a rank, which gets no arguments of the drill.
        write_json(folder / _ORDER, asdict(self))

    @classmethod
    def read_from(cls, folder: Path) -> DrillOrder:
        """Return the order in `folder`."""
        return cls(**json.loads((folder / _ORDER).read_text(encoding="utf-8")))


def get_record_path(folder: Path, attempt: str, rank: int) -> Path:
    """Return the path of a rank's records."""
    return folder / f"{attempt}-rank{rank}.jsonl"


def get_reached_path(folder: Path, attempt: str, rank: int) -> Path:
    """Return the path of the file by which a rank reports that it waits."""
    return folder / f"{attempt}-rank{rank}.reached"


def get_sent_path(folder: Path, attempt: str) -> Path:
    """Return the path of the file by which the drill reports that the signal was sent."""
    return folder / f"{attempt}.sent"
