"""The frozen config: saved in a run folder, and read back by every process. No process composes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mlscale.errors import MLScaleError

CONFIG, DERIVED = "config.yaml", "derived.yaml"
RENAMED_TARGETS = {
    "mlscale.registry.LocalRegistry": "mlscale.versions.LocalRegistry",
    "mlscale.registry.WandbRegistry": "mlscale.versions.WandbRegistry",
    "mlscale.train.callbacks.Trace": "mlscale.verify_resume.trace.Trace",
}
"""Target names in the configs of earlier runs, and their present names."""
REMOVED_GROUPS = ("monitor",)
"""Groups of earlier runs that mean nothing any more: the reference profile is collected by the export alone."""


def load_composed(folder: Path) -> DictConfig:
    """Return the config of a run folder as it was composed: nothing derived, interpolations kept."""
    return _read_config_file(folder / CONFIG)


def load_frozen(folder: Path) -> DictConfig:
    """Return the config of a run folder with its derived values in place, interpolations kept."""
    cfg = load_composed(folder)
    derived = _read_config_file(folder / DERIVED)
    cfg.derived = OmegaConf.merge(cfg.get("derived") or {}, derived)
    return cfg


def _read_config_file(path: Path) -> DictConfig:
    """Read a file of a run folder.

    Raises:
        MLScaleError: it is absent or corrupt.
    """
    try:
        cfg = OmegaConf.load(path)
    # A file that was cut short or edited by hand can raise any of these; RecursionError comes from deep nesting.
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise create_corrupt_error(path, str(error).split("\n")[0]) from error
    if not isinstance(cfg, DictConfig):
        raise create_corrupt_error(path, "it does not hold keys and values")
    _rename_targets(cfg)
    for group in REMOVED_GROUPS:
        cfg.pop(group, None)
    return cfg


def _rename_targets(node: DictConfig | ListConfig) -> None:
    """Give every `_target_` below `node` its present name. Interpolations are not resolved."""
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        # Reading such a key would resolve it, or raise: values may depend on an environment that is not set here.
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if key == "_target_" and value in RENAMED_TARGETS:
            node[key] = RENAMED_TARGETS[value]
        elif isinstance(value, DictConfig | ListConfig) and not (value._is_none()):
            _rename_targets(value)


def create_corrupt_error(path: Path, why: str) -> MLScaleError:
    """Return the error for a file of a run folder that can't be used."""
    return MLScaleError(
        f"the run's {path.name} is corrupt", where=str(path), why=why, fix="restore it from a copy of the run"
    )


def add_derived(cfg: DictConfig, derived: dict[str, Any]) -> DictConfig:
    """Return a copy of `cfg` with the derived values in place."""
    copy = cfg.copy()
    copy.derived = OmegaConf.merge(cfg.get("derived") or {}, derived)
    return copy
