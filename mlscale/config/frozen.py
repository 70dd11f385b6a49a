"""The frozen config: what a run folder keeps, and what every process reads back. No process composes again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

CONFIG, DERIVED = "config.yaml", "derived.yaml"


def composed(folder: Path) -> DictConfig:
    """The config of a run folder as it was composed: nothing derived, interpolations kept."""
    cfg = OmegaConf.load(folder / CONFIG)
    assert isinstance(cfg, DictConfig)
    return cfg


def load(folder: Path) -> DictConfig:
    """The config of a run folder with its derived values in place, interpolations kept."""
    cfg = composed(folder)
    derived = OmegaConf.load(folder / DERIVED)
    cfg.derived = OmegaConf.merge(cfg.get("derived") or {}, derived)
    return cfg


def with_derived(cfg: DictConfig, derived: dict[str, Any]) -> DictConfig:
    """A copy of `cfg` with the derived values in place."""
    copy = cfg.copy()
    copy.derived = OmegaConf.merge(cfg.get("derived") or {}, derived)
    return copy
