"""The weights that a config names to start from: a version, a run or a file; or those that come with the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.assembly.build import build
from mlscale.config.targets import import_target
from mlscale.runs.initial_source import InitialWeights
from mlscale.versions.trained_model import resolve_initial_weights

if TYPE_CHECKING:
    from omegaconf import DictConfig


def resolve_first_weights(cfg: DictConfig) -> InitialWeights | None:
    """Return the weights that `init_from` names, else the pretrained ones that the model's own key requests; None
    without both.

    Raises:
        MLScaleError: the version, run or file does not exist, is corrupt, or can't be fetched (exit code 5).
    """
    if cfg.get("init_from"):
        return resolve_initial_weights(str(cfg.init_from), build(cfg.get("registry"), "registry"), cfg.runs_dir)
    from mlscale.train.initial_weights import pretrained

    # Fetched in the launching process, once: ranks would download the same file at the same time.
    if pretrained.get_requested_library(cfg.get("model")):
        return pretrained.fetch_pretrained_weights(cfg.model, import_target(cfg.model))
    return None
