"""A resolved trained model, and the forms in which commands need it: with its run, or as a servable.

Find the weights of a version: the file of a checkpoint, or the checkpoint that a servable was exported from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mlscale.config.names.suggest import format_override
from mlscale.contracts.servable_yaml import DOCUMENT, read_document
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.runs.find import find_run_folders
from mlscale.runs.folder import RunFolder
from mlscale.runs.initial_source import InitialWeights, find_initial_weights, is_weights_file_name, resolve_weights_file
from mlscale.runs.recover import is_run_folder
from mlscale.runs.run_reader import CONFIG
from mlscale.versions.from_run import WEIGHTS
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.version_record import Version, read_version

BEST = "best"
SERVABLE = "servable"  # the folder in a run that `mlscale export` writes
_DIGITS = 12


@dataclass(frozen=True)
class TrainedModel:
    """A resolved model; nothing of it is loaded yet.

    Attributes:
        kind: the kind of object that the reference named.
        path: its absolute path, the only name that is never ambiguous.
        label: its name in messages: a run's folder, `resnet:v7`, or a file.
        home: the folder with the config.yaml and derived.yaml of model and data; None where there is none.
        run: the run folder for results; None where there is none.
        checkpoint: of the run: best, last, another name, or the path of a file; None for a servable.
        servable: its folder; None for a checkpoint.
        name: the run's or the model's name, under which events are stored.
        version: its name in responses and events: for a servable outside the registry its name and the first 12 hex
            digits of the SHA-256 of its servable.yaml, such as `resnet:3f9a0c12de45`.
    """

    kind: Literal["run", "checkpoint", "version", "servable"]
    path: Path
    label: str
    home: Path | None
    run: Path | None
    checkpoint: str | None
    servable: Path | None
    name: str
    version: str

    @property
    def is_registered(self) -> bool:
        """True if it is a version of the registry."""
        return self.kind == "version"

    @property
    def description(self) -> str:
        """A description with its path, such as `the run runs/2026-01-05/resnet-1n8q4m7zk3xp`."""
        if self.kind == "version":
            return (
                f"the version {self.version}, a {'servable' if self.servable else 'checkpoint'} "
                f"in {shorten_path(self.path)}"
            )
        of_run = f" of the run {self.run.name}" if self.kind == "checkpoint" and self.run else ""
        called = f", {self.version}" if self.kind == "servable" else ""
        return f"the {self.kind} {shorten_path(self.path)}{of_run}{called}"

    def open_run(self) -> RunFolder:
        """Return its run, for commands that write into the run's folder: see `require_run_checkpoint`."""
        assert self.run is not None
        return RunFolder.open(self.run)


def shorten_path(path: Path) -> str:
    """Return a path for messages: relative to the working directory if it is inside, else as it is."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def get_run_model(run: RunFolder, checkpoint: str | None = None) -> TrainedModel:
    """Return a run's model with the given checkpoint: best (default), last, another name, or a path."""
    path = run.path.absolute()
    name = str(run.run["name"])
    return TrainedModel("run", path, path.name, path, path, checkpoint or BEST, None, name, path.name)


def get_checkpoint_model(path: Path) -> TrainedModel:
    """Return the model of a file in a run's folder, or of one with its config.yaml next to it, as a version has it.

    Raises:
        MLScaleError: its model is unknown.
    """
    path = path.absolute()
    # A run's checkpoint is in `<run>/checkpoints/`, a version's next to its config.yaml.
    for folder in path.parents[:3]:
        if is_run_folder(folder):
            return replace(get_run_model(RunFolder.open(folder), str(path)), kind="checkpoint", path=path)
        if (folder / CONFIG).is_file():
            return TrainedModel("checkpoint", path, path.name, folder, None, str(path), None, path.stem, path.name)
    raise MLScaleError(
        "the model of this checkpoint is not known",
        where=str(path),
        why="it is neither in a run's folder nor next to a config.yaml",
        fix=f"ref=<the run that it is of> {format_override('checkpoint', str(path))}",
    )


def get_servable_model(folder: Path, runs_dir: str | Path) -> TrainedModel:
    """Return the model of a servable's folder outside the registry.

    Raises:
        MLScaleError: its servable.yaml is corrupted, or has no name of a model.
    """
    folder = folder.absolute()
    document = read_document(folder)
    name = document.get("name")
    if not isinstance(name, str):
        raise MLScaleError(
            f"{DOCUMENT} names no model",
            where=str(folder / DOCUMENT),
            fix="mlscale export <its run>, which makes it again",
        )
    # A servable outside the registry has no number; its document lists the digests of all its files.
    digest = hashlib.sha256((folder / DOCUMENT).read_bytes()).hexdigest()
    version = f"{name}:{digest[:_DIGITS]}"
    run = document.get("run")
    home = find_recorded_run({"id": run.get("id")} if isinstance(run, dict) else {}, runs_dir)
    return TrainedModel("servable", folder, version, home, home, None, folder, name, version)


def get_version_model(version: Version, runs_dir: str | Path) -> TrainedModel:
    """Return the model of a version; a checkpoint's version has its own config, a servable's uses that of its run, if
    it is on this machine.
    """
    ref, payload = version.ref, version.payload
    if version.kind == "checkpoint":
        file = str(payload / WEIGHTS)
        return TrainedModel("version", version.path, ref, payload, None, file, None, version.name, ref)
    home = find_recorded_run(version.run or {}, runs_dir)
    return TrainedModel("version", version.path, ref, home, None, None, payload, version.name, ref)


def require_run_checkpoint(model: TrainedModel, command: str, runs_dir: str | Path) -> TrainedModel:
    """Return the model as a checkpoint in a run's folder, for a command that writes there; for a version of a
    checkpoint, the checkpoint that it was published from.

    Raises:
        MLScaleError: it is a servable, a file outside of runs, or its run is not on this machine.
    """
    if model.run is not None and model.servable is None:
        return model
    if model.servable is not None:
        raise MLScaleError(
            f"{model.label} is a servable, not a run or a checkpoint",
            where=f"ref={shorten_path(model.path)}",
            why=f"`mlscale {command}` starts from the weights of a run",
            fix=f"ref={model.home.name if model.home else 'last'}",
        )
    if model.kind == "checkpoint":
        raise MLScaleError(
            "the checkpoint is not in a run's folder",
            where=f"ref={shorten_path(model.path)}",
            why=f"`mlscale {command}` works in the folder of a run",
            fix=f"mlscale {command} <the run that it is of> {format_override('checkpoint', str(model.path))}",
        )
    return get_checkpoint_model(find_origin(read_version(model.path), runs_dir)[1])


def require_servable(model: TrainedModel, runs_dir: str | Path) -> TrainedModel:
    """Return the model as a servable: itself, or the one that a run has exported.

    Raises:
        MLScaleError: it is a checkpoint, or a run that has exported nothing.
    """
    if model.servable is not None:
        return model
    if model.kind == "run" and (model.path / SERVABLE / DOCUMENT).is_file():
        return get_servable_model(model.path / SERVABLE, runs_dir)
    origin = (read_version(model.path).run or {}).get("id") if model.is_registered else None
    run = str(origin or (model.run.name if model.run else "last"))
    # The version that is added has the name that was typed: the latest one of it is the servable.
    add = f"\nmlscale versions add {run} servable=true name={model.name}\nref={model.name}:latest"
    add = add if model.is_registered else ""
    raise MLScaleError(
        f"{model.label} has no servable yet"
        if model.kind == "run"
        else f"{model.label} is a checkpoint, not a servable",
        where=shorten_path(model.path),
        why="a servable is what mlscale export makes of a run",
        fix=f"mlscale export {run}{add}",
    )


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
