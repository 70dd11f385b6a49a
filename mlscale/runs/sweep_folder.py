"""The folder of a sweep: `sweep.json`, with the jobs that failed before they had a run, and the folders of its runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mlscale.atomic_files import PRIVATE_FOLDER, make_folders, write_json
from mlscale.contracts import get_format_tag
from mlscale.runs.identity import get_current_time

SWEEP = "sweep.json"
_HYDRA = "multirun.yaml"
_FAILED = "failed_jobs"


@dataclass(frozen=True)
class FailedJob:
    """A job of a sweep that failed before it had a run folder.

    Attributes:
        job: its number in the sweep, from 1.
        overrides: what distinguishes it, secrets masked.
        error: why it failed, in one line.
    """

    job: int
    overrides: tuple[str, ...]
    error: str


def start_sweep(path: str | Path, name: str) -> None:
    """Create the folder of a sweep, private; each of its jobs may call this, the first one creates it.

    Hydra's sweeper creates the folder, and writes the whole command into it as typed. That file is removed, for it may
    hold secrets: each run's folder has the same settings without them.
    """
    folder = Path(path).absolute()
    make_folders(folder)
    (folder / _HYDRA).unlink(missing_ok=True)
    if not (folder / SWEEP).is_file():
        # Hydra's sweeper has created the folder with the default mode.
        folder.chmod(PRIVATE_FOLDER)
        document = {
            "format": get_format_tag("sweep"),
            "id": folder.name.rsplit("-", 1)[-1],
            "name": name,
            "created": get_current_time(),
        }
        write_json(folder / SWEEP, document)


def record_failed_job(path: Path, job: FailedJob) -> None:
    """Write a job that failed into the document of its sweep."""
    document = json.loads((path / SWEEP).read_text(encoding="utf-8"))
    write_json(path / SWEEP, {**document, _FAILED: [*document.get(_FAILED, ()), asdict(job)]})


def read_failed_jobs(path: str | Path) -> list[FailedJob]:
    """Return the jobs of a sweep that failed before they had a run; none where its document can't be read."""
    # Runs say themselves of which sweep they are, so that they can be listed without this document.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        document = json.loads((Path(path) / SWEEP).read_text(encoding="utf-8"))
        return [FailedJob(job["job"], tuple(job["overrides"]), job["error"]) for job in document.get(_FAILED, ())]
    return []


def find_sweep_folders(root: str | Path) -> Iterator[Path]:
    """Yield the folder of every sweep, the newest first."""
    folders = [file.parent for file in Path(root).absolute().glob(f"*/*/{SWEEP}")]
    yield from sorted(folders, key=lambda path: path.name.rsplit("-", 1)[-1], reverse=True)


def discard_sweep(path: str | Path) -> None:
    """Remove the file of Hydra's sweeper for a sweep of which no job began, and folders that are empty then."""
    folder = Path(path).absolute()
    (folder / _HYDRA).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # stops at the first folder that is not empty, or does not exist
        for empty in (folder, *folder.parents[:2]):
            empty.rmdir()
