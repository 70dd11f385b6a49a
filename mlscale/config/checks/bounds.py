"""Bounds of single values of a run, without imports; `derive` checks what depends on data and machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from mlscale.errors import MLScaleError

_SINGLE = "mlscale.train.strategies.single"
_SEEDS = 1 << 32  # numpy's
_LEAST_VALUES = {  # the least, whether it may be that itself, what to type
    "precision.loss_scale": (0, False, 65536), "precision.growth_interval": (1, True, 2000),
    "precision.max_skipped": (1, True, 20),
    "launch.max_restarts": (0, True, 2), "launch.timeout_s": (0, False, 600),
    "strategy.timeout": (0, False, 1800), "strategy.wrap_min_params": (1, True, 1_000_000),
}  # fmt: skip


def check_bounds(cfg: Mapping[str, Any]) -> Iterator[MLScaleError]:
    """Yield a problem for a seed beyond 32 bits, an empty metric name, or a setting below its least value; other types
    than numbers are checked elsewhere.
    """
    if isinstance(seed := cfg.get("seed"), int) and not 0 <= seed < _SEEDS:
        why = f"a seed is a whole number from 0 to {_SEEDS - 1}"
        yield MLScaleError(f"seed={seed} is not a seed", where="seed", why=why, fix="seed=<a whole number>")
    if cfg.get("metric") == "" and "task" in cfg:  # a service has none
        yield MLScaleError("the metric has no name", where="metric", fix="leave it out: the task has its own")
    for where, (least, itself, usual) in _LEAST_VALUES.items():
        group, _, key = where.partition(".")
        node = cfg.get(group)
        # The comparison is negated so that NaN, which compares false with everything, is out of bounds.
        value = node.get(key) if isinstance(node, Mapping) else None
        # A third-party strategy's timeout may be a timedelta.
        if isinstance(value, int | float) and not (value > least or (itself and value == least)):
            why = f"it is {least} or more" if itself else f"it is more than {least}"
            yield MLScaleError(f"{where} is {value:g}", where=where, why=why, fix=f"{where}={usual}")


def check_single_process(cfg: DictConfig, devices: int) -> Iterator[MLScaleError]:
    """Yield the problem of `strategy=single` with several processes."""
    if devices > 1 and str((cfg.get("strategy") or {}).get("_target_", "")) == _SINGLE:
        yield create_single_process_error(devices)


def create_single_process_error(devices: int) -> MLScaleError:
    """Return the error of `strategy=single` with several processes."""
    return MLScaleError(
        f"strategy=single runs one process, and {devices} are asked for",
        where="strategy, trainer.devices",
        fix="trainer.devices=1\nstrategy=ddp",
    )
