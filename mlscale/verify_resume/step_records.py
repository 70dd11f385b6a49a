"""The files between a drill and the ranks that it starts: their orders, and the records of their steps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class AttemptRecords:
    """The records of all ranks of an attempt.

    Attributes:
        first_step: optimizer steps before its first; None where it took none.
        last_step: optimizer steps after its last; `first_step` where it completed none.
        host: the name of its host.
        samples: sorted digests of the samples of each global batch, by optimizer step.
        losses: of each rank, by optimizer step, as hexadecimal floats.
        weights: the digest of the parameters after the last step, where the attempt was stopped on order.
    """

    first_step: int | None = None
    last_step: int | None = None
    host: str = ""
    samples: dict[int, list[str]] = field(default_factory=dict)
    losses: dict[int, list[list[str]]] = field(default_factory=dict)
    weights: str = ""


def read_attempt_records(folder: Path, attempt: str) -> AttemptRecords:
    """Return the records of an attempt, of all its ranks; a line that a kill cut short is left out."""
    first: int | None = None
    last: int | None = None
    host, weights = "", ""
    samples: dict[int, list[str]] = {}
    losses: dict[int, list[list[str]]] = {}
    for path in sorted(folder.glob(f"{attempt}-rank*.jsonl"), key=_parse_rank):
        for record in _parse_record_lines(path):
            step = record["step"]
            # Ranks begin at one step; the least counts where a rank was cut off.
            if record["kind"] == "begin":
                first, host = step if first is None else min(first, step), record["host"]
            elif record["kind"] == "step":
                samples[step] = sorted([*samples.get(step, []), *record["samples"]])
                losses.setdefault(step, []).append(record["losses"])
                last = step if last is None else max(last, step)
            elif _parse_rank(path) == 0:
                weights = record["digest"]
    return AttemptRecords(first, first if last is None else last, host, samples, losses, weights)


def _parse_rank(path: Path) -> int:
    # As a number: as texts, rank10 comes before rank2.
    return int(path.stem.rpartition("rank")[2])


def _parse_record_lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(text)
        except ValueError:
            continue


def find_other_batch(reference: AttemptRecords, resumed: AttemptRecords) -> int | None:
    """Return the first optimizer step whose global batch has other samples than the uninterrupted run's; or None."""
    return next(
        (step for step in sorted(resumed.samples) if resumed.samples[step] != reference.samples.get(step)),
        None,
    )


def is_bitwise_identical(reference: AttemptRecords, resumed: AttemptRecords) -> bool:
    """Return True if losses of all ranks and the weights at the end are equal in all bits."""
    same = all(losses == reference.losses.get(step) for step, losses in resumed.losses.items())
    return same and bool(resumed.weights) and resumed.weights == reference.weights
