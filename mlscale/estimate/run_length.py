"""Compute the length of a run: passes, epochs, validations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunLength:
    """The length of a run.

    Attributes:
        passes: total number of forward and backward passes.
        epochs: number of epochs that the passes belong to; a part of one counts as one.
        validations: total number of validations.
        validation_batches: batches of one validation.
    """

    passes: int
    epochs: int
    validations: int
    validation_batches: int


def compute_run_length(
    trainer: Mapping[str, Any], passes_of_epoch: int | None, total_passes: int | None, validation_batches: int | None
) -> RunLength | None:
    """Return the length of a run from the trainer's settings; None for a run without a known end.

    Args:
        trainer: settings as Lightning's Trainer takes them.
        passes_of_epoch: forward and backward passes of one rank in an epoch.
        total_passes: of the whole run.
        validation_batches: of one validation without limits; None or 0 without validation.
    """
    if passes_of_epoch is None or total_passes is None or passes_of_epoch < 1:
        return None
    epochs = -(-total_passes // passes_of_epoch)  # rounded up
    batches = limit_batches(trainer.get("limit_val_batches"), validation_batches or 0)
    return RunLength(
        total_passes, epochs, _count_validations(trainer, passes_of_epoch, total_passes) if batches else 0, batches
    )


def count_validation_batches(derived: Any) -> int | None:
    """Return the batches of a process in one validation, by a config's derived values; None if unknown."""
    if not derived.val_samples or not derived.per_device_batch:
        return None
    return int(-(-derived.val_samples // (derived.per_device_batch * derived.world_size)))


def limit_batches(limit: float | None, batches: int) -> int:
    """Return the number of batches under Lightning's limit, an integer (batches) or a float (share)."""
    # As Lightning: the type decides, so that 1 is one batch and 1.0 all of them.
    if limit is None:
        return batches
    if isinstance(limit, int):
        return min(limit, batches)
    return max(1, int(limit * batches)) if limit > 0 and batches else 0


def _count_validations(trainer: Mapping[str, Any], passes_of_epoch: int, total_passes: int) -> int:
    interval, every = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    if isinstance(interval, int) and not isinstance(interval, bool):
        # Without `check_val_every_n_epoch` Lightning counts batches over epochs, else within each epoch.
        if every is None:
            return total_passes // interval
        in_epoch = passes_of_epoch // interval
    else:
        in_epoch = int(1 / interval) if isinstance(interval, float) and 0 < interval <= 1 else 1
    return (total_passes // passes_of_epoch // (every or 1)) * in_epoch
