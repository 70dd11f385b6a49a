"""The order to stop for a run that will be killed: the killing process, and the place to wait. Two files near the
trace."""

from __future__ import annotations

from pathlib import Path

from mlscale.atomic_files import make_folders, write_json
from mlscale.runs import processes as process

ORDER = "order.json"


def there(folder: Path) -> Path:
    """Return the path of the file that the run creates when it has stopped and waits."""
    return folder / "there"


def order(folder: Path, place: str | None = None, step: int = 0) -> None:
    """Write the order for a run that traces into `folder`: this process as its owner, and the place to stop.

    Args:
        place: step, validation, save or between: the first of its kind from `step` on; None to continue to the end.
        step: optimizer steps before the stop.
    """
    make_folders(folder)
    # That of an earlier attempt would have the next one killed at once.
    there(folder).unlink(missing_ok=True)
    write_json(folder / ORDER, {"place": place, "step": step, **process.this()})
