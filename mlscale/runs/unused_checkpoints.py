"""Choose the checkpoints of a run that can be removed, and remove them; what anything still needs stays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlscale.atomic_files import create_write_error, iterate_regular_files, remove_tree
from mlscale.runs.amend import forget_artefacts
from mlscale.runs.checkpoint_files.checkpoint_commit import remove_incomplete_checkpoints
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX
from mlscale.runs.checkpoint_files.checkpoint_search import (
    find_best_checkpoint_file,
    find_latest_valid,
    list_checkpoint_files,
)
from mlscale.runs.folder import RunFolder

_COMPLETE = ("done", "diverged")  # no step of these is left to resume


@dataclass(frozen=True)
class CheckpointChoice:
    """The checkpoints in a run's folder `checkpoints`.

    Attributes:
        run: the run.
        retained: the path of each that stays, with the reason.
        removable: the paths of all others.
    """

    run: RunFolder
    retained: Mapping[Path, str]
    removable: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """The size of what can be removed."""
        return sum(map(measure_size, self.removable))


def choose_checkpoints(run: RunFolder, keep: Collection[str], used: Mapping[str, str]) -> CheckpointChoice:
    """Return which checkpoints of a run can be removed.

    A run that is not done keeps the checkpoint that it would be resumed from. A run that is done, and of which one that
    `keep` names can't be read, keeps its latest valid one.

    Args:
        run: the run; its training has ended.
        keep: `last`, `best`, or the name of another one, such as `step=500`.
        used: the file names that something else refers to, each with what does.
    """
    folder = run.path / "checkpoints"
    document = run.run
    named = {name: folder / f"{name}{SUFFIX}" for name in keep}
    if "best" in named:
        best = find_best_checkpoint_file(folder, document["metric"], document["mode"])
        named["best"] = best or named["best"]
    present = [checkpoint.path for checkpoint in list_checkpoint_files(folder)]
    retained = {path: f"keep={name}" for name, path in named.items() if path in present}
    retained |= {path: used[path.name] for path in present if path.name in used}
    if set(present) <= set(retained):
        return CheckpointChoice(run, retained, ())
    identity = (run.id, str(document["config_hash"]))
    # Each is read whole, so only where something would be removed.
    is_readable = all(not verify_checkpoint(path).is_corrupt for path in retained)
    is_enough = is_readable and ("last" not in named or named["last"] in retained)
    if run.status not in _COMPLETE or not is_enough:
        latest, _ = find_latest_valid(folder, identity)
        if latest is not None:
            retained.setdefault(latest, "the run resumes from it")
    return CheckpointChoice(run, retained, tuple(path for path in present if path not in retained))


def remove_checkpoints(run: RunFolder, paths: Sequence[Path]) -> None:
    """Remove checkpoints of a run whose lock is held, and what killed saves have left beside them.

    Raises:
        MLScaleError: one can't be removed.
    """
    # The seal first: a kill in between leaves files that the seal does not list, never a seal that lists absent ones.
    forget_artefacts(run.path, *(path.relative_to(run.path).as_posix() for path in paths))
    for path in paths:
        try:
            remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise create_write_error(path, error) from error
    remove_incomplete_checkpoints(run.path / "checkpoints")


def measure_size(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder; 0 for one that is gone."""
    try:
        return (
            sum(file.stat().st_size for file in iterate_regular_files(path)) if path.is_dir() else path.stat().st_size
        )
    except FileNotFoundError:  # a run that still trains replaces its files
        return 0
