"""The number of processes of strategy=single."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from mlscale.errors import MLScaleError

_SINGLE = "mlscale.train.strategies.single"


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
