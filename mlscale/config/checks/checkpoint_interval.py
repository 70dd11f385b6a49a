"""`every=auto` of a checkpoint callback: it chooses the interval alone, and `mtbf_hours` is for nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.errors import MLScaleError

_MODULE = "mlscale.train.callbacks"
_TARGETS = (f"{_MODULE}.Checkpoints", f"{_MODULE}.checkpoints.Checkpoints")

_PERIODS = ("every_n_steps", "every_n_minutes")


def check_checkpoint_intervals(config: CheckedConfig) -> Iterator[MLScaleError]:
    """Yield the problem of each checkpoint callback that has an interval next to `every=auto`."""
    for path, node in _iterate_checkpoints(config.tree.get("callbacks")):
        if problem := create_interval_error(path, node):
            problem.where = config.describe_origin(f"{path}.every")
            yield problem


def create_interval_error(path: str, settings: Mapping[str, Any]) -> MLScaleError | None:
    """Return the error of settings with an interval next to `every`; None where they have one or none."""
    set_keys = [key for key in _PERIODS if settings.get(key) is not None]
    if settings.get("every") is None or not set_keys:
        return None
    return MLScaleError(
        f"{path}.every={settings['every']} and {' and '.join(set_keys)} are both set",
        where=f"{path}.every",
        why="every=auto chooses the interval itself",
        fix=" ".join(f"{path}.{key}=null" for key in set_keys) + f"; or {path}.every=null",
    )


def collect_checkpoint_notices(cfg: DictConfig) -> list[str]:
    """Return a line for each checkpoint callback that has `mtbf_hours` and no use for it."""
    callbacks = cfg.get("callbacks")
    plain = OmegaConf.to_container(callbacks, resolve=False) if isinstance(callbacks, DictConfig) else {}
    return [
        f"{path}.mtbf_hours has no effect: it is for {path}.every=auto"
        for path, node in _iterate_checkpoints(plain)
        if node.get("mtbf_hours") is not None and node.get("every") is None
    ]


def _iterate_checkpoints(callbacks: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # A callback may have any name; a user's own class may give `every` another meaning.
    for name, node in callbacks.items() if isinstance(callbacks, dict) else ():
        if isinstance(node, dict) and node.get("_target_") in _TARGETS:
            yield f"callbacks.{name}", node
