"""Removing runs for good."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from mlscale.errors import MLScaleError, raise_all
from mlscale.runs.files import remove_tree
from mlscale.runs.folder import RunFolder
from mlscale.runs.sweep import SWEEP

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def remove(runs: Sequence[RunFolder]) -> None:
    """Remove runs, and the folders of sweeps and dates that then hold nothing.

    Raises:
        MLScaleError: one of them is running, or may be, on another machine; then none is removed.
    """
    raise_all([_running(run) for run in runs if run.status in ("running", "elsewhere")])
    for run in runs:
        path = run.path.resolve()
        sweep = path.parent if run.run["sweep"] else None
        remove_tree(path)
        if sweep and (sweep / SWEEP).is_file() and not any(entry.is_dir() for entry in sweep.iterdir()):
            remove_tree(sweep)  # no run is left in it
        date = sweep.parent if sweep else path.parent
        if _DATE.fullmatch(date.name):
            _remove_if_empty(date)


def _running(run: RunFolder) -> MLScaleError:
    host = run.run["attempts"][-1]["host"]
    return MLScaleError(
        f"run {run.id} is running"
        if run.status == "running"
        else f"run {run.id} was started on {host}, and never ended",
        where=str(run.path),
        why="a run that goes on would write into nothing",
        fix="stop it first" if run.status == "running" else f"remove it on {host}",
    )


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
