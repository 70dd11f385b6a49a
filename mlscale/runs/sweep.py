"""The folder of a sweep: `sweep.json`, beside the folders of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlscale.contracts import stamp
from mlscale.runs.files import PRIVATE_FOLDER, make_folders, write_json
from mlscale.runs.folder import now
from mlscale.runs.secrets import mask_overrides

SWEEP = "sweep.json"
_HYDRA = "multirun.yaml"


def start_sweep(path: str | Path, name: str, overrides: Sequence[str] = ()) -> Path:
    """Make `path` the folder of a sweep; returns it, absolute.

    Hydra's sweeper makes the folder, and writes the whole command into it as typed: that file is removed, for what it
    says stands in sweep.json and in each run's folder, without secrets.
    """
    folder = Path(path).absolute()
    make_folders(folder)
    folder.chmod(PRIVATE_FOLDER)
    (folder / _HYDRA).unlink(missing_ok=True)
    document = {
        "format": stamp("sweep"),
        "id": folder.name.rsplit("-", 1)[-1],
        "name": name,
        "created": now(),
        "overrides": mask_overrides(overrides),
    }
    write_json(folder / SWEEP, document)
    return folder
