"""The order to stop for a run that will be killed: the killing process, and the place to wait. Two files near the
trace."""

from __future__ import annotations

from pathlib import Path

from mlscale.atomic_files import make_folders, write_json
from mlscale.runs.host import processes as process

ORDER = "order.json"


def get_stopped_path(folder: Path) -> Path:
    """Return the path of the file that the run creates when it has stopped and waits."""
    return folder / "there"


def write_stop_order(folder: Path, phase: str | None = None, step: int = 0) -> None:
    """Write the order for a run that traces into `folder`: this process as its owner, and the place to stop.

    Args:
        phase: step, validation, save or between: the first of its kind from `step` on; None to continue to the end.
        step: optimizer steps before the stop.
    """
    make_folders(folder)
    # That of an earlier attempt would have the next one killed at once.
    get_stopped_path(folder).unlink(missing_ok=True)
    write_json(folder / ORDER, {"place": phase, "step": step, **process.identify_process()})
