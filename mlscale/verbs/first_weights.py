"""The weights that a config names to start from: a version, a run or a file; or those that come with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.config.build import build
from mlscale.registry.initial import initial_weights
from mlscale.runs.initial import Initial

if TYPE_CHECKING:
    from omegaconf import DictConfig


def initial_of(cfg: DictConfig) -> Initial | None:
    """What `init_from` names; None where it names nothing.

    Raises:
        MLScaleError: there is no such version, run or file, or it is damaged.
    """
    if not cfg.get("init_from"):
        return None
    return initial_weights(str(cfg.init_from), build(cfg.get("registry"), "registry"), cfg.runs_dir)
