"""Resolve a reference to a trained model; all commands use this module.

A reference is a run (id, the unique beginning of one, folder, `last`), a version (`resnet:v7`, `resnet@champion`,
`resnet` for its champion), a checkpoint's path, or a servable's folder. A reference that matches several models is an
error, never a guess. Only the beginning of a run's id or name is ignored where something has exactly that name.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from mlscale.config.names.suggest import find_nearest
from mlscale.contracts.servable_yaml import DOCUMENT
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX
from mlscale.runs.checkpoint_files.sharded_folder import is_sharded
from mlscale.runs.find import LAST, build_run_not_found, find_run, list_runs, match_runs
from mlscale.runs.folder import RunFolder
from mlscale.runs.recover import is_run_folder
from mlscale.runs.remote_checkpoints.store_access import is_remote
from mlscale.runs.run_reader import RUN
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.trained_model import (
    BEST,
    TrainedModel,
    get_checkpoint_model,
    get_run_model,
    get_servable_model,
    get_version_model,
    shorten_path,
)
from mlscale.versions.version_record import RECORD, Version, read_version
from mlscale.versions.version_reference import CHAMPION

_SHOWN = 8  # candidates that a message lists


class ModelCandidate(NamedTuple):
    """A model that a reference may name.

    Attributes:
        typed: a reference that matches this model only.
    """

    model: TrainedModel
    typed: str


def resolve_reference(
    ref: str | Path,
    *,
    runs_dir: str | Path = "runs",
    registry: LocalRegistry | None = None,
    checkpoint: str | None = None,
    verify: bool = False,
    quiet: bool = False,
    key: str = "ref",
) -> TrainedModel:
    """Return the model for `ref`, and print one line about it, unless `ref` is its absolute path.

    Args:
        ref: as typed.
        runs_dir: the folder of runs.
        registry: the registry of versions; None without one.
        checkpoint: the checkpoint of a run: best, last, another name, or the path of a file.
        verify: compare the files of a version with their digests.
        quiet: print nothing.
        key: the setting that holds `ref`: an error names it, and its fix sets it.

    Raises:
        MLScaleError: it matches no model, or several; or `checkpoint` is given for a model that is not a run.
    """
    text = str(ref)
    try:
        candidates = _find_candidates(text, isinstance(ref, Path), runs_dir, registry)
        if len(candidates) > 1:
            raise _make_ambiguous_error(text, candidates, registry)
    except MLScaleError as error:
        error.where, error.fix = (re.sub(r"\bref=", f"{key}=", part) for part in (error.where, error.fix))
        raise
    (model,) = (candidate.model for candidate in candidates)
    if model.kind == "run":
        model = get_run_model(RunFolder.open(model.path), checkpoint)
    elif checkpoint not in (None, "", BEST):
        raise MLScaleError(
            f"checkpoint={checkpoint} chooses among a run's checkpoints, and {text} is one model",
            where=f"command line: checkpoint={checkpoint}",
            why=f"it is {model.description}",
            fix="leave checkpoint out, or name the run",
        )
    if verify and model.is_registered:
        LocalRegistry(model.path.parents[2]).verify_version(
            read_version(model.path)
        )  # <root>/versions/<name>/v<number>
    if not quiet and text != str(model.path):
        print(f"model     {text}: {model.description}", file=sys.stderr, flush=True)
    return model


def _find_candidates(
    text: str, is_path: bool, runs_dir: str | Path, registry: LocalRegistry | None
) -> list[ModelCandidate]:
    """Return every model with exactly the name `text`, or else every run whose id or name begins with it.

    Raises:
        MLScaleError: nothing matches.
    """
    if is_remote(text):
        return [ModelCandidate(get_run_model(find_run(text, runs_dir)), text)]
    path = Path(os.path.expanduser(text))  # not Path.expanduser, which raises for a user that does not exist
    if is_path or _is_path(text):
        return [ModelCandidate(_resolve_path(text, path, runs_dir), text)]
    # A bare name may be a folder in the working directory, a run and a version at once: all are collected.
    here = _find_model_in_folder(path, runs_dir) if text and path.is_dir() else None
    exact, partial = match_runs(text, runs_dir)
    candidates = {here.path: ModelCandidate(here, f".{os.sep}{text}")} if here else {}
    for run in exact:
        model = get_run_model(run)
        # Keyed by path: a run's folder and its id are the same model, which is not ambiguous.
        candidates.setdefault(model.path, ModelCandidate(model, shorten_path(model.path)))
    if (version := _find_version(text, registry, alone=not candidates)) is not None:
        candidates[version.path] = ModelCandidate(
            get_version_model(version, runs_dir), _choose_unique_reference(text, version.path, registry)
        )
    if not candidates:
        candidates = {run.path: ModelCandidate(get_run_model(run), shorten_path(run.path)) for run in partial}
    if not candidates:
        raise _make_not_found_error(text, runs_dir, registry)
    return list(candidates.values())


def _is_path(text: str) -> bool:
    return "/" in text or os.sep in text or text.startswith((".", "~")) or text.endswith(SUFFIX)


def _resolve_path(text: str, path: Path, runs_dir: str | Path) -> TrainedModel:
    """Return the model in a folder or a file.

    Raises:
        MLScaleError: it does not exist, or is not a model.
    """
    if is_sharded(path):
        return get_checkpoint_model(path)
    if path.is_dir() and (model := _find_model_in_folder(path, runs_dir)) is not None:
        return model
    # The document of a model stands for its folder.
    if path.is_file() and path.name in (RUN, DOCUMENT, RECORD):
        return _resolve_path(text, path.parent, runs_dir)
    if path.is_file():
        return get_checkpoint_model(path)
    if text.endswith(SUFFIX):
        raise MLScaleError("checkpoint not found", where=f"ref={text}", fix="mlscale runs checkpoints last")
    raise MLScaleError(
        f"no trained model in '{text}'",
        where=str(path.absolute()),
        why=f"it has no {RUN}, {DOCUMENT} or {RECORD}" if path.is_dir() else "no such file or folder",
        fix="mlscale runs ls\nmlscale versions ls",
    )


def _find_model_in_folder(folder: Path, runs_dir: str | Path) -> TrainedModel | None:
    """Return the model in the folder of a run, a servable or a version; None for any other folder."""
    if is_run_folder(folder):
        return get_run_model(RunFolder.open(folder))
    if (folder / DOCUMENT).is_file():
        return get_servable_model(folder, runs_dir)
    if (folder / RECORD).is_file():
        return get_version_model(read_version(folder), runs_dir)
    return None


def _find_version(text: str, registry: LocalRegistry | None, *, alone: bool) -> Version | None:
    """Return the version for `text`; None where there is none, unless it can only be the name of a version.

    Raises:
        MLScaleError: it has a ':' or '@', matches nothing else, and the version is not found.
    """
    is_marked = any(mark in text for mark in ":@")
    if registry is None:
        if is_marked and alone:
            raise MLScaleError(
                f"'{text}' is a version, and no registry is set",
                where=f"ref={text}",
                fix="registry=local registry.root=<its folder>\nref=<a run, a checkpoint or a servable's folder>",
            )
        return None
    if not is_marked:
        return registry.resolve_version(text) if text in registry.list_model_names() else None
    try:
        return registry.resolve_version(text)
    except MLScaleError:
        if alone:
            raise
        return None


def _choose_unique_reference(text: str, path: Path, registry: LocalRegistry | None) -> str:
    """Return a name that only the version in `path` has; for a bare name one that still follows the champion."""
    # A path names one version for good, so for a bare name `@champion` is closer to what was typed.
    champion = f"{text}@{CHAMPION}"
    is_bare = not any(mark in text for mark in ":@")
    has_champion = is_bare and registry is not None and CHAMPION in registry.get_aliases(text).of
    return champion if has_champion and not Path(champion).exists() else shorten_path(path)


def _make_ambiguous_error(text: str, candidates: list[ModelCandidate], registry: LocalRegistry | None) -> MLScaleError:
    """Return the error that lists the models for `text`, with a reference for each."""
    width = max(len(candidate.typed) for candidate in candidates)
    lines = [f"{candidate.typed:<{width}}  {candidate.model.description}" for candidate in candidates[:_SHOWN]]
    if len(candidates) > _SHOWN:
        lines.append(f"… and {len(candidates) - _SHOWN} more: mlscale runs ls")
    # Runs whose names begin so are rarely what was meant where a registered model has nearly this name.
    names = registry.list_model_names() if registry is not None else []
    if text not in names and (near := find_nearest(text, names)) is not None:
        lines.insert(0, f"{near:<{width}}  the registered model {near}")
    return MLScaleError(f"'{text}' means {len(candidates)} models", where=f"ref={text}", fix="\n".join(lines))


def _make_not_found_error(text: str, runs_dir: str | Path, registry: LocalRegistry | None) -> MLScaleError:
    """Return the error for a name without a match; its fix is the nearest name."""
    names, runs = registry.list_model_names() if registry is not None else [], list_runs(runs_dir)
    is_sweep = any(text and run.run["sweep"] == text for run in runs)
    if text == LAST or is_sweep or not (runs or names):
        return build_run_not_found(text, runs_dir)
    near = find_nearest(text, [*names, *(name for run in runs for name in (run.id, run.path.name)), LAST])
    places = [str(runs_dir), *([str(registry.root)] if registry is not None else [])]
    return MLScaleError(
        f"no run or model '{text}'",
        where=f"ref={text}: {', '.join(places)}",
        why="no run, version or folder of a servable has this name",
        fix=f"ref={near}" if near else "mlscale runs ls\nmlscale versions ls",
    )
