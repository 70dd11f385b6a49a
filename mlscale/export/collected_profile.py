"""The reference profile that a run has collected itself: `<run>/reference/`, of one checkpoint, named by its digest."""

from __future__ import annotations

from pathlib import Path

from mlscale.atomic_files import whole_folder
from mlscale.errors import MLScaleError
from mlscale.export.reference_profile import ABOUT, Reference
from mlscale.runs.checkpoint_files import content_digest

FOLDER = "reference"


def write(run: Path, reference: Reference) -> None:
    """Write the folder, completely or not at all, replacing the previous one.

    Raises:
        MLScaleError: it can't be written (exit code 5).
    """
    with whole_folder(run / FOLDER) as aside:
        reference.save(aside)


def read(run: Path) -> Reference:
    """Return the profile that `write` wrote.

    Raises:
        MLScaleError: there is none, or it is corrupt or of a later format.
    """
    return Reference.load(run / FOLDER)


def belongs(run: Path, checkpoint: Path) -> bool:
    """Return whether the run has a profile that can be read, and that is of `checkpoint`."""
    if not (run / FOLDER / ABOUT).is_file():
        return False
    try:
        said = read(run).about.get("checkpoint")
    except MLScaleError:
        # A corrupt profile is as good as none: the caller then collects it again.
        return False
    # By digest: best.ckpt is overwritten under the same name, and a killed run may have left the profile of another.
    return isinstance(said, dict) and said.get("sha256") == content_digest(checkpoint)
