"""Find the weights of a version: the file of a checkpoint, or the checkpoint that a servable was exported from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.runs.find import find_run_folders
from mlscale.runs.folder import RunFolder
from mlscale.runs.initial_source import InitialWeights, find_initial_weights, is_weights_file_name, resolve_weights_file
from mlscale.runs.recover import is_run_folder
from mlscale.runs.run_reader import CONFIG
from mlscale.versions.from_run import WEIGHTS
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.version_record import Version


def resolve_initial_weights(text: str, registry: LocalRegistry | None, root: str | Path = "runs") -> InitialWeights:
    """Return the weights for `init_from=<text>`: of a version if it has a ':' or '@' and is not a file; else of a file
    or a run; else, if no such run is found, of the version for a model's bare name.

    Args:
        text: as typed.
        registry: the registry of versions; None without one.
        root: the folder of runs.

    Raises:
        MLScaleError: nothing has that name, it is corrupted, or its weights are missing.
    """
    is_path = Path(text).expanduser().exists() or "/" in text or is_weights_file_name(text)
    if not is_path and any(mark in text for mark in ":@"):
        if registry is None:
            raise MLScaleError(
                f"'{text}' is a version, and no registry is set",
                where=f"init_from={text}",
                fix="registry=local registry.root=<its folder>\ninit_from=<a run or a file of weights>",
            )
        return find_version_weights(registry.fetch(text), root)
    try:
        return find_initial_weights(text, root)
    except MLScaleError:
        if is_path or registry is None or text not in registry.list_model_names():
            raise
    return find_version_weights(registry.fetch(text), root)


def find_version_weights(version: Version, root: str | Path) -> InitialWeights:
    """Return the weights of a version whose files were verified.

    Raises:
        MLScaleError: it is a servable whose run or checkpoint is missing.
    """
    run = version.run or {}
    if version.kind == "checkpoint":
        weights = resolve_weights_file(version.payload / WEIGHTS)
    else:
        weights = resolve_weights_file(find_origin(version, root)[1])
    licence = (run.get("weights") or {}).get("licence") or weights.licence
    return replace(weights, run=run.get("id"), source="version", name=version.ref, licence=licence)


def find_origin(version: Version, root: str | Path) -> tuple[RunFolder, Path]:
    """Return the run and the checkpoint that a version was made of.

    Raises:
        MLScaleError: the version names no run, or run or checkpoint was not found.
    """
    run = version.run or {}
    path = find_recorded_run(run, root)
    # The recorded path may hold another run by now.
    folder = RunFolder.open(path) if path else None
    if folder is None or folder.id != run.get("id"):
        raise MLScaleError(
            f"the run that {version.ref} comes from is not there",
            where=str(run.get("path") or root),
            why=f"its config and weights are those of run {run['id']}" if run.get("id") else "the version names no run",
            fix="runs_dir=<the folder of its runs>, or train, export and promote a model of a run that you keep",
        )
    path = folder.path / "checkpoints" / str(run.get("checkpoint") or "best.ckpt")
    if not is_checkpoint(path):
        raise MLScaleError(
            f"the checkpoint that {version.ref} was made of is gone",
            where=str(path),
            fix="put the file back, or train, export and promote another model",
        )
    return folder, path


def find_recorded_run(run: Mapping[str, Any], root: str | Path) -> Path | None:
    """Return the folder of a run with a config, from its recorded path or its id; None where it is not there."""
    identity = str(run.get("id") or "")
    # The recorded path first; it is wrong once the run was moved, or the version came from another machine.
    candidates = [Path(str(run["path"]))] if run.get("path") else []
    # By the id at the end of the folder's name: run.json is not read for each run.
    candidates += [folder for folder in find_run_folders(root) if identity and folder.name.endswith(f"-{identity}")]
    return next(
        (folder.absolute() for folder in candidates if is_run_folder(folder) and (folder / CONFIG).is_file()), None
    )
