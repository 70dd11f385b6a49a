"""Find the weights of a version: the file of a checkpoint, or the checkpoint that a servable was exported from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.runs.find import find
from mlscale.runs.folder import RUN, RunFolder
from mlscale.runs.initial_source import Initial, find_initial, is_file_name, of_file
from mlscale.versions.from_run import WEIGHTS
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.version_record import Version


def initial_weights(text: str, registry: LocalRegistry | None, root: str | Path = "runs") -> Initial:
    """Return the weights for `init_from=<text>`: of a version if it has a ':' or '@' and is not a file; else of a file
    or a run; else, if no such run is found, of the version for a model's bare name.

    Args:
        text: as typed.
        registry: the registry of versions; None without one.
        root: the folder of runs.

    Raises:
        MLScaleError: nothing has that name, it is corrupted, or its weights are missing.
    """
    there = Path(text).expanduser().exists() or "/" in text or is_file_name(text)
    if not there and any(mark in text for mark in ":@"):
        if registry is None:
            raise MLScaleError(
                f"'{text}' is a version, and there is no registry",
                where=f"init_from={text}",
                fix="registry=local registry.root=<its folder>, or init_from=<a run or a file of weights>",
            )
        return of_version(registry.fetch(text), root)
    try:
        return find_initial(text, root)
    except MLScaleError:
        if there or registry is None or text not in registry.names():
            raise
    return of_version(registry.fetch(text), root)


def of_version(version: Version, root: str | Path) -> Initial:
    """Return the weights of a version whose files were verified.

    Raises:
        MLScaleError: it is a servable whose run or checkpoint is missing.
    """
    run = version.run or {}
    if version.kind == "checkpoint":
        found = of_file(version.payload / WEIGHTS)
    else:
        folder = run_of(version, root)
        path = folder.path / "checkpoints" / str(run.get("checkpoint") or "best.ckpt") if folder else None
        if path is None or not path.is_file():
            raise MLScaleError(
                f"the weights that {version.ref} was exported from are gone",
                where=str(path or run.get("path") or root),
                why="a servable holds a graph; training starts from the checkpoint of its run",
                fix="runs_dir=<the folder of its runs>, or init_from=<a checkpoint, or a version of one>",
            )
        found = of_file(path)
    licence = (run.get("weights") or {}).get("licence") or found.licence
    return replace(found, run=run.get("id"), source="version", name=version.ref, licence=licence)


def run_of(version: Version, root: str | Path) -> RunFolder | None:
    """Return the run that made a version; None where it does not exist any more."""
    run = version.run or {}
    path = run.get("path")
    if path and Path(path, RUN).is_file():
        found = RunFolder.open(path)
        # The path in a record may hold another run by now.
        return found if found.id == run.get("id") else None
    try:
        return find(str(run["id"]), root)
    except (KeyError, MLScaleError):
        return None
