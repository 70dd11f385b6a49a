"""The reference profile that a run has collected itself: `<run>/reference/`, of one checkpoint, named by its digest."""

from __future__ import annotations

from pathlib import Path

from mlscale.atomic_files import replace_folder
from mlscale.errors import MLScaleError
from mlscale.export.reference_profile import ABOUT, ReferenceProfile
from mlscale.runs.checkpoint_files.checkpoint_digest import read_content_digest

FOLDER = "reference"


def write_collected_profile(run: Path, reference: ReferenceProfile) -> None:
    """Write the folder, completely or not at all, replacing the previous one.

    Raises:
        MLScaleError: it can't be written (exit code 5).
    """
    with replace_folder(run / FOLDER) as aside:
        reference.save_profile(aside)


def read_collected_profile(run: Path) -> ReferenceProfile:
    """Return the profile that `write_collected_profile` wrote.

    Raises:
        MLScaleError: there is none, or it is corrupt or of a later format.
    """
    return ReferenceProfile.load_profile(run / FOLDER)


def has_collected_profile(run: Path, checkpoint: Path) -> bool:
    """Return whether the run has a profile that can be read, and that is of `checkpoint`."""
    if not (run / FOLDER / ABOUT).is_file():
        return False
    try:
        recorded_checkpoint = read_collected_profile(run).about.get("checkpoint")
    except MLScaleError:
        # A corrupt profile is as good as none: the caller then collects it again.
        return False
    # By digest: best.ckpt is overwritten under the same name, and a killed run may have left the profile of another.
    return isinstance(recorded_checkpoint, dict) and recorded_checkpoint.get("sha256") == read_content_digest(
        checkpoint
    )
