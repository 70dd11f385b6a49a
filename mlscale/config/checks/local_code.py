"""The code of the working folder that a config runs: named once at start, because that code is trusted."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

_MLSCALE = Path(__file__).resolve().parents[2]


def describe_local_code(cfg: DictConfig) -> list[str]:
    """Return one line that names the modules below the working folder that `_target_`s of `cfg` import; an empty list
    for none.
    """
    here = Path.cwd()
    local_files: dict[str, None] = {}  # a set in order
    for target in dict.fromkeys(list_targets(cfg)):
        for origin in _find_origins(target):
            if origin.is_relative_to(_MLSCALE):  # mlscale's own, `lightning` among it
                continue
            if origin.is_relative_to(here) and "site-packages" not in origin.parts:
                local_files[os.path.relpath(origin, here)] = None
    return [f"code of this folder runs: {', '.join(local_files)}"] if local_files else []


def _find_origins(target: str) -> list[Path]:
    """Return the files that an import of a target runs: of each package on the way, and of its module; of packages
    without a file of their own, where none is in them, the folder."""
    name, *inside = target.split(".")
    try:
        # find_spec of a top-level name runs nothing of the module; of a nested one it would run the package.
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    # A module that is built in has an origin that is not a path: "built-in" or "frozen".
    files = [Path(spec.origin)] if spec.origin and spec.has_location else []
    namespace = folders[:1]
    for part in inside:
        module = next((file for folder in folders if (file := _find_module(folder, part)) is not None), None)
        if module is not None:
            files.append(module)
        # A module has no modules in it, and what a package lacks is a class or a function.
        folders = [folder / part for folder in folders if (folder / part).is_dir()]
    return [file.resolve() for file in files or namespace]


def _find_module(folder: Path, name: str) -> Path | None:
    """Return the file of a module or package; as an import does, the package where both are there."""
    return next((file for file in (folder / name / "__init__.py", folder / f"{name}.py") if file.is_file()), None)


def list_targets(cfg: DictConfig) -> list[str]:
    """Return every `_target_` of a config, in order."""
    return list(_iterate_targets(OmegaConf.to_container(cfg)))


def _iterate_targets(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("_target_"), str):
            yield tree["_target_"]
        for value in tree.values():
            yield from _iterate_targets(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _iterate_targets(value)
