"""Find the weights of a version: the file of a checkpoint, or the checkpoint that a servable was exported from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.runs.find import find_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.initial_source import InitialWeights, find_initial_weights, is_weights_file_name, resolve_weights_file
from mlscale.runs.run_reader import RUN
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
        folder = find_version_run(version, root)
        path = folder.path / "checkpoints" / str(run.get("checkpoint") or "best.ckpt") if folder else None
        if path is None or not is_checkpoint(path):
            raise MLScaleError(
                f"the weights that {version.ref} was exported from are gone",
                where=str(path or run.get("path") or root),
                why="a servable holds a graph; training starts from the checkpoint of its run",
                fix="runs_dir=<the folder of its runs>\ninit_from=<a checkpoint, or a version of one>",
            )
        weights = resolve_weights_file(path)
    licence = (run.get("weights") or {}).get("licence") or weights.licence
    return replace(weights, run=run.get("id"), source="version", name=version.ref, licence=licence)


def find_version_run(version: Version, root: str | Path) -> RunFolder | None:
    """Return the run that made a version; None where it does not exist any more."""
    run = version.run or {}
    path = run.get("path")
    if path and Path(path, RUN).is_file():
        folder = RunFolder.open(path)
        # The path in a record may hold another run by now.
        return folder if folder.id == run.get("id") else None
    try:
        return find_run(str(run["id"]), root)
    except (KeyError, MLScaleError):
        return None
