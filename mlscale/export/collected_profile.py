"""The reference profile that a run has collected itself: `<run>/reference/`, of one checkpoint, named by its digest."""

from __future__ import annotations

from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.export.reference_profile import ABOUT, Reference
from mlscale.files import whole_folder
from mlscale.runs.checkpoint_files import content_digest

FOLDER = "reference"


def write(run: Path, reference: Reference) -> None:
    """Write the folder, whole or not at all, in the place of the one before.

    Raises:
        MLScaleError: it can't be written (exit code 5).
    """
    with whole_folder(run / FOLDER) as aside:
        reference.save(aside)


def read(run: Path) -> Reference:
    """What `write` wrote.

    Raises:
        MLScaleError: there is none, or it is damaged or of a later format.
    """
    return Reference.load(run / FOLDER)


def belongs(run: Path, checkpoint: Path) -> bool:
    """Whether the run has a profile that can be read, and it is that of `checkpoint`."""
    if not (run / FOLDER / ABOUT).is_file():
        return False
    try:
        said = read(run).about.get("checkpoint")
    except MLScaleError:
        return False
    return isinstance(said, dict) and said.get("sha256") == content_digest(checkpoint)
