"""The model that a command names: a run's checkpoint, a checkpoint by its path, a version, or a servable."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mlscale.contracts.servable_yaml import DOCUMENT, read_document
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files import SUFFIX
from mlscale.runs.find import find, run_paths
from mlscale.runs.folder import CONFIG, RUN, RunFolder
from mlscale.runs.recover import is_run_folder
from mlscale.versions.from_run import WEIGHTS
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.servable_path import locate

BEST = "best"


@dataclass(frozen=True)
class Subject:
    """A model that was found; nothing of it is loaded yet.

    Attributes:
        name: what it is called: a run's folder, `resnet:v7`, or a file.
        home: the folder whose config.yaml and derived.yaml say how model and data were made; None where there is none.
        run: the run folder that takes results; None where there is none.
        checkpoint: of the run: best, last, another one's name, or the path of a file; None for a servable.
        servable: its folder; None for a checkpoint.
        model: by which events are kept: the run's or the model's name.
        version: what events call it.
    """

    name: str
    home: Path | None
    run: Path | None
    checkpoint: str | None
    servable: Path | None
    model: str
    version: str


def find_subject(
    *,
    run: str | None = None,
    version: str | None = None,
    checkpoint: str | None = None,
    servable: str | None = None,
    runs_dir: str | Path = "runs",
    registry: LocalRegistry | None = None,
) -> Subject:
    """The model that is named: by `run` (with `checkpoint` as one of its), or by one of the others alone.

    Raises:
        MLScaleError: none is named, or two are; there is no such run, version or file.
    """
    named = {"run": run, "version": version, "servable": servable}
    chosen = {key: str(value) for key, value in named.items() if value not in (None, "")}
    by_path = bool(checkpoint) and checkpoint != BEST and "run" not in chosen
    given = {**chosen, "checkpoint": checkpoint} if by_path else chosen
    if len(given) != 1:
        raise MLScaleError(
            f"{len(given)} models are named" if given else "no model is named",
            where="command line" + "".join(f" {key}={value}" for key, value in given.items()),
            why="a model is a run, a version, a servable, or a checkpoint by its path",
            fix=f"{next(iter(given))}=… alone"
            if given
            else "run=last, version=resnet@champion, servable=<a folder>, or checkpoint=<a file>",
        )
    if by_path:
        return _of_file(Path(str(checkpoint)).expanduser())
    if "run" in chosen:
        found = find(chosen["run"], runs_dir)
        picked = checkpoint or BEST
        return _of_run(found, picked)
    if "version" in chosen:
        return _of_version(chosen["version"], runs_dir, registry)
    located = locate(chosen["servable"], registry)
    document = read_document(located.folder)
    home = _run_by_id(str((document.get("run") or {}).get("id")), None, runs_dir)
    return Subject(located.version, home, home, None, located.folder, located.name, located.version)


def find_other(text: str, runs_dir: str | Path, registry: LocalRegistry | None) -> Subject:
    """What one word means: a checkpoint's path, a servable's folder, a version where it has a ':' or '@', else a run.

    Raises:
        MLScaleError: there is none such.
    """
    path = Path(text).expanduser()
    if text.endswith(SUFFIX) or (path.is_file() and path.name != RUN):
        return find_subject(checkpoint=text, runs_dir=runs_dir, registry=registry)
    if (path / DOCUMENT).is_file():
        return find_subject(servable=str(path.absolute()), runs_dir=runs_dir, registry=registry)
    if re.search(r"[:@]", text) and not path.exists():
        return find_subject(version=text, runs_dir=runs_dir, registry=registry)
    return find_subject(run=text, runs_dir=runs_dir, registry=registry)


def _of_run(run: RunFolder, checkpoint: str) -> Subject:
    name = str(run.run["name"])
    return Subject(run.path.name, run.path, run.path, checkpoint, None, name, run.path.name)


def _of_file(path: Path) -> Subject:
    """A checkpoint in a run's folder, or one that lies beside the config it was trained with, as a version's does."""
    path = path.absolute()
    if not path.is_file():
        raise MLScaleError(
            "there is no such checkpoint", where=f"checkpoint={path}", fix="mlscale runs checkpoints last"
        )
    for folder in path.parents[:3]:
        if is_run_folder(folder):
            return _of_run(RunFolder.open(folder), str(path))
        if (folder / CONFIG).is_file():
            return Subject(path.name, folder, None, str(path), None, path.stem, path.name)
    raise MLScaleError(
        "nothing says what model this checkpoint is of",
        where=f"checkpoint={path}",
        why="it lies neither in a run's folder nor beside a config.yaml",
        fix=f"run=<the run that it is of> checkpoint={path}",
    )


def _of_version(text: str, runs_dir: str | Path, registry: LocalRegistry | None) -> Subject:
    if registry is None:
        raise MLScaleError(
            f"'{text}' is a version, and there is no registry",
            where="version",
            fix="registry=local registry.root=<its folder>",
        )
    version = registry.fetch(text)
    origin = version.run or {}
    home = _run_by_id(str(origin.get("id")), origin.get("path"), runs_dir)
    if version.kind == "servable":
        return Subject(version.ref, home, None, None, version.payload, version.name, version.ref)
    file = str(version.payload / WEIGHTS)
    return Subject(version.ref, version.payload, None, file, None, version.name, version.ref)


def _run_by_id(identity: str, path: object, runs_dir: str | Path) -> Path | None:
    """The folder of a run that is still there."""
    there = [Path(str(path))] if path else []
    there += [each for each in run_paths(runs_dir) if each.name.endswith(f"-{identity}")]
    return next((each.absolute() for each in there if (each / RUN).is_file() and (each / CONFIG).is_file()), None)
