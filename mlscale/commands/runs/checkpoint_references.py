"""Find the references to checkpoints of runs: those of versions, and of runs that are still to be finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.runs import recover
from mlscale.runs.folder import RunFolder
from mlscale.runs.run_reader import CONFIG, DERIVED, RUN
from mlscale.versions import open_registry

_COMPLETE = ("done", "diverged")


def find_version_references(roots: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Return for each run the file names of the checkpoints that a version was made of, with its name and aliases.

    Args:
        roots: folders of registries; those that do not exist hold no version.

    Raises:
        MLScaleError: the record of a version can't be read, so that what it refers to is unknown.
    """
    references: dict[str, dict[str, str]] = {}
    for root in roots:
        registry = open_registry(root)
        for model in registry.list_model_names():
            for path, why in registry.find_corrupted_versions(model).items():
                raise MLScaleError(
                    f"the record of the version {model}:{path.name} can't be read",
                    where=str(path),
                    why=f"{why}; so the checkpoint that it refers to is unknown, and none is removed",
                    fix=f"mlscale versions ls {model} registry.root={root}",
                )
            aliases = registry.get_aliases(model)
            for version in registry.list_versions(model):
                made = version.run or {}
                if made.get("id") and made.get("checkpoint"):
                    names = "".join(f" @{alias}" for alias in aliases.list_aliases_of(version.number))
                    used = references.setdefault(str(made["id"]), {})
                    used.setdefault(Path(str(made["checkpoint"])).name, f"version {version.ref}{names}")
    return references


def find_registry_roots(runs: Sequence[RunFolder]) -> list[Path]:
    """Return the folders of the registries that the configs of runs name."""
    roots = {}
    for run in runs:
        try:
            registry = recover.read_yaml_values(run.path / CONFIG).get("registry")
        except MLScaleError:  # a corrupt config names none
            continue
        root = registry.get("root") if isinstance(registry, Mapping) else None
        # An interpolation is resolved where the run is; here it is not a folder.
        if isinstance(root, str) and "${" not in root:
            roots[Path(root).expanduser().absolute()] = True
    return list(roots)


def find_dependent_runs(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Return the ids of runs that a run which is still to be finished names: it starts from one, or learns from it.

    Returns:
        the id of each such run, with the id of the run that names it.
    """
    unfinished = {run.id: _read_texts(run) for run in runs if run.status not in _COMPLETE}
    named = {}
    for run in runs:
        # By its id in the text of the other's files: whatever key it is under, and also within a path.
        namer = next((other for other, text in unfinished.items() if other != run.id and run.id in text), None)
        if namer:
            named[run.id] = namer
    return named


def _read_texts(run: RunFolder) -> str:
    texts = []
    for name in (RUN, CONFIG, DERIVED):
        path = run.path / name
        if path.is_file():
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(texts)
