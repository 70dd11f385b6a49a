"""What a run is told that is trained to be killed: by whom, and where to stop and wait. Two files beside its trace."""

from __future__ import annotations

from pathlib import Path

from mlscale.files import make_folders, write_json
from mlscale.runs import processes as process

ORDER = "order.json"


def there(folder: Path) -> Path:
    """The file that is made when the run has stopped and waits."""
    return folder / "there"


def order(folder: Path, place: str | None = None, step: int = 0) -> None:
    """Tell a run that will trace into `folder` that this process is who it trains for, and where to stop.

    Args:
        place: step, validation, save or between: the first of its kind from `step` on; None to go on to the end.
        step: optimizer steps taken by then.
    """
    make_folders(folder)
    there(folder).unlink(missing_ok=True)
    write_json(folder / ORDER, {"place": place, "step": step, **process.this()})
