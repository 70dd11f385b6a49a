"""The lineage of a champion: the run and checkpoint that a challenger starts from."""

from __future__ import annotations

from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.runs.folder import RunFolder
from mlscale.versions import LocalRegistry, Version
from mlscale.versions.version_reference import CHAMPION
from mlscale.versions.version_weights import find_version_run

RETRAINED = "retrain"
"""The tag of a run that a cycle has trained."""


def require_champion(registry: LocalRegistry, version: Version) -> Version:
    """Return `version` if it is its model's champion.

    Raises:
        MLScaleError: it is not the champion, or its model has none.
    """
    # The alias may have moved since the version was resolved: read it now.
    number = registry.get_aliases(version.name).of.get(CHAMPION)
    if number == version.number:
        return version
    raise MLScaleError(
        f"{version.ref} is not the champion of {version.name}",
        where=f"ref={version.ref}",
        why=f"that is {version.name}:v{number}" if number else "there is none yet",
        fix=f"mlscale retrain {version.name}@champion" if number else f"mlscale versions promote {version.ref}",
    )


def find_origin(version: Version, runs_dir: str | Path) -> tuple[RunFolder, Path]:
    """Return the run and the checkpoint that a version was exported from.

    Raises:
        MLScaleError: the version names no run, or run or checkpoint was not found.
    """
    run = version.run or {}
    folder = find_version_run(version, runs_dir)
    if folder is None:
        raise MLScaleError(
            f"the run that {version.ref} comes from is not there",
            where=str(run.get("path") or runs_dir),
            why=f"a challenger has the config of run {run['id']}, and starts from its weights"
            if run.get("id")
            else "the version names no run",
            fix="runs_dir=<the folder of its runs>, or train, export and promote a model of a run that you keep",
        )
    path = folder.path / "checkpoints" / str(run.get("checkpoint") or "best.ckpt")
    if not is_checkpoint(path):
        raise MLScaleError(
            f"the checkpoint that {version.ref} was made of is gone",
            where=str(path),
            why="a challenger starts from its weights",
            fix="put the file back, or train, export and promote another model",
        )
    return folder, path
