"""The interval between two validations, against the batches of an epoch: Lightning refuses a longer one."""

from __future__ import annotations

from collections.abc import Iterator

from omegaconf import DictConfig

from mlscale.errors import MLScaleError


def check_validation_interval(cfg: DictConfig, batches: int | None) -> Iterator[MLScaleError]:
    """Yield the problem of an interval in batches that is longer than an epoch.

    Args:
        batches: of one device in an epoch; None where they are not known.
    """
    interval, every = cfg.trainer.get("val_check_interval"), cfg.trainer.get("check_val_every_n_epoch", 1)
    is_count = isinstance(interval, int) and not isinstance(interval, bool)
    if batches is None or not is_count or every is None or interval <= batches:
        return
    # Without a limit of epochs every interval is reached.
    epochs = cfg.trainer.get("max_epochs") or -1
    is_reached = epochs < 0 or interval <= batches * epochs
    yield MLScaleError(
        f"an epoch has {batches} batches, and is validated after {interval}",
        where=f"trainer.val_check_interval={interval}",
        why="it counts batches within an epoch; across epochs with trainer.check_val_every_n_epoch=null",
        fix="trainer.check_val_every_n_epoch=null" if is_reached else "trainer.val_check_interval=1.0",
    )
