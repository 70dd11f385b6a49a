"""The folder of a sweep: `sweep.json`, beside the folders of its runs."""

from __future__ import annotations

import contextlib
from pathlib import Path

from mlscale.contracts import stamp
from mlscale.files import PRIVATE_FOLDER, make_folders, write_json
from mlscale.runs.identity import now

SWEEP = "sweep.json"
_HYDRA = "multirun.yaml"


def start_sweep(path: str | Path, name: str) -> None:
    """Make `path` the folder of a sweep, private; once, however many jobs call this.

    Hydra's sweeper makes the folder, and writes the whole command into it as typed: that file is removed, for what it
    says stands in each run's folder, without secrets.
    """
    folder = Path(path).absolute()
    make_folders(folder)
    (folder / _HYDRA).unlink(missing_ok=True)
    if not (folder / SWEEP).is_file():
        folder.chmod(PRIVATE_FOLDER)
        document = {"format": stamp("sweep"), "id": folder.name.rsplit("-", 1)[-1], "name": name, "created": now()}
        write_json(folder / SWEEP, document)


def discard_sweep(path: str | Path) -> None:
    """Remove what Hydra's sweeper made for a sweep of which no job began: its file, and folders that are empty then."""
    folder = Path(path).absolute()
    (folder / _HYDRA).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the first that is not empty, or not there
        for empty in (folder, *folder.parents[:2]):
            empty.rmdir()
