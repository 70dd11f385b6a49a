"""Remove runs permanently."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from mlscale.atomic_files import remove_tree, report_run_folder
from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.runs.folder import RunFolder
from mlscale.runs.sweep_folder import SWEEP

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def remove_runs(runs: Sequence[RunFolder]) -> None:
    """Remove runs, and the folders of sweeps and dates that are empty then.

    Raises:
        MLScaleError: one of them is running, or may be, on another machine; then none is removed. Or its folder belongs
            to another user.
    """
    raise_all([_make_running_error(run) for run in runs if run.status in ("running", "elsewhere")])
    for run in runs:
        path = run.path.resolve()
        sweep = path.parent if run.run["sweep"] else None
        with report_run_folder(path, removes=True):
            _remove_folder(path)
        if sweep and (sweep / SWEEP).is_file() and not any(entry.is_dir() for entry in sweep.iterdir()):
            _remove_folder(sweep)  # no run is left in it
        date = sweep.parent if sweep else path.parent
        if _DATE.fullmatch(date.name):
            _remove_if_empty(date)


def _remove_folder(folder: Path) -> None:
    try:
        remove_tree(folder)
    except MLScaleError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        # Removing a folder takes write permission for it, and for its parent folder.
        raise MLScaleError(
            f"no permission to remove {folder.name}",
            where=str(folder),
            why=", ".join(
                f"{path} belongs to {_get_owner_name(path)}" for path in (folder, folder.parent) if path.exists()
            ),
            fix=f"ask {_get_owner_name(folder.parent)} to remove it, or to let you write to {folder.parent}",
            exit=Exit.ENVIRONMENT,
        ) from error


def _get_owner_name(folder: Path) -> str:
    if not folder.exists():
        return "its owner"
    try:
        return folder.owner()
    except KeyError:  # a user that this machine does not know, as on a network file system
        return f"user {folder.stat().st_uid}"


def _make_running_error(run: RunFolder) -> MLScaleError:
    host = run.run["attempts"][-1]["host"]
    return MLScaleError(
        f"run {run.id} is running"
        if run.status == "running"
        else f"run {run.id} was started on {host}, and never ended",
        where=str(run.path),
        why="a run that is still running would lose its folder",
        fix=f"kill {run.run['attempts'][-1]['pid']}, which lets it save and end, on {host}"
        if run.status == "running"
        else f"remove it on {host}",
    )


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
