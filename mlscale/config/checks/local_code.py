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
    local_files = []
    for name in dict.fromkeys(target.split(".")[0] for target in list_targets(cfg)):
        origin = _find_origin(name)
        if origin is None or origin.is_relative_to(_MLSCALE):  # mlscale's own, `lightning` among it
            continue
        if origin.is_relative_to(here) and "site-packages" not in origin.parts:
            local_files.append(os.path.relpath(origin, here))
    return [f"code of this folder runs: {', '.join(local_files)}"] if local_files else []


def _find_origin(module: str) -> Path | None:
    try:
        # find_spec of a top-level name runs nothing of the module.
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    # A module that is built in has an origin that is not a path: "built-in" or "frozen".
    places = [spec.origin] if spec.origin and spec.has_location else list(spec.submodule_search_locations or [])
    return Path(places[0]).resolve() if places else None


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
