"""Where a run is asked to stop and wait to be killed: two files beside its trace."""

from __future__ import annotations

from pathlib import Path

from mlscale.runs import process
from mlscale.runs.files import make_folders, write_json

REQUEST = "halt.json"


def there(folder: Path) -> Path:
    """The file that is made when the run has stopped and waits."""
    return folder / "there"


def ask(folder: Path, place: str, step: int) -> None:
    """Ask a run that will trace into `folder` to stop.

    Args:
        place: step, validation or save: the first of its kind from `step` on.
        step: optimizer steps taken by then.
    """
    make_folders(folder)
    write_json(folder / REQUEST, {"place": place, "step": step, **process.this()})


def withdraw(folder: Path) -> None:
    """Ask for nothing any more."""
    for path in (folder / REQUEST, there(folder)):
        path.unlink(missing_ok=True)
