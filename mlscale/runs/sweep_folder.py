"""The folder of a sweep: `sweep.json` and the folders of its runs."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mlscale.atomic_files import PRIVATE_FOLDER, make_folders, write_json
from mlscale.contracts import get_format_tag
from mlscale.runs.identity import get_current_time

SWEEP = "sweep.json"
_HYDRA = "multirun.yaml"


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


def discard_sweep(path: str | Path) -> None:
    """Remove the file of Hydra's sweeper for a sweep of which no job began, and folders that are empty then."""
    folder = Path(path).absolute()
    (folder / _HYDRA).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # stops at the first folder that is not empty, or does not exist
        for empty in (folder, *folder.parents[:2]):
            empty.rmdir()
