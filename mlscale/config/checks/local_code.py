"""The code of the working folder that a config runs: named once at start, because that code is trusted."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_MLSCALE = Path(__file__).resolve().parents[2]


def local_targets(cfg: DictConfig) -> list[str]:
    """Return one line that names the modules below the working folder that `_target_`s of `cfg` import; an empty list
    for none.
    """
    here = Path.cwd()
    found = []
    for name in dict.fromkeys(target.split(".")[0] for target in targets(cfg)):
        origin = _origin(name)
        if origin is None or origin.is_relative_to(_MLSCALE):  # mlscale's own, `lightning` among it
            continue
        if origin.is_relative_to(here) and "site-packages" not in origin.parts:
            found.append(os.path.relpath(origin, here))
    return [f"code of this folder runs: {', '.join(found)}"] if found else []


def _origin(module: str) -> Path | None:
    try:
        # find_spec of a top-level name runs nothing of the module.
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    return Path(places[0]).resolve() if places else None


def targets(cfg: DictConfig) -> list[str]:
    """Return every `_target_` of a config, in order."""
    return list(_targets(OmegaConf.to_container(cfg)))


def _targets(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("_target_"), str):
            yield tree["_target_"]
        for value in tree.values():
            yield from _targets(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _targets(value)
