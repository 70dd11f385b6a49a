"""Estimate the time of a run from a short fit: time its parts, choose its length, and extrapolate to the whole run.

Compute the length of a run: passes, epochs, validations.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

ERROR = 0.10  # least error of the time, as a share; scripts/bench_estimate.py compares it with whole runs
EPOCHS = 3  # of a probe: the first warms up
_TRAINING_SHARE = 0.8  # of a probe's time; the rest is for validation
_MIN_PASSES = 10  # of an epoch: fewer give an unsteady mean, and loggers read the device every ten steps
_MIN_VALIDATION_BATCHES = 2  # an interval needs two moments


@dataclass(frozen=True)
class Timing:
    """The times of one fit, seconds.

    Attributes:
        pass_s: one forward and backward pass, with its batch and its share of the optimizer's step.
        validation_s: one batch of validation; 0 without validation.
        epoch_s: the rest of an epoch, such as checkpoints and the start of loaders.
        epochs: number of epochs; the first warms up and is left out of the means if there are others.
        passes, validation_batches: of one epoch, as they were limited.
        spread: half the range of the mean pass over parts of the fit, as a share of the mean.
        all_passes, all_validation_batches: of one epoch without limits; None for loaders without a length.
    """

    pass_s: float
    validation_s: float
    epoch_s: float
    epochs: int
    passes: int
    validation_batches: int
    spread: float = 0.0
    all_passes: int | None = None
    all_validation_batches: int | None = None


class Clock(Callback):
    """A callback that times epochs, passes and validations, and writes a `Timing` at the end of a fit.

    Args:
        path: the JSON file that rank 0 writes.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._epochs: list[EpochMoments] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = _read_synchronized_time(trainer)
        # An epoch ends where the next one starts, so that it includes all work at its end, such as checkpoints.
        if self._epochs:
            self._epochs[-1].end = now
        self._epochs.append(EpochMoments(now))

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        # Without waiting for the device, which would slow the run: only means over many passes are used.
        self._epochs[-1].passes.append(time.perf_counter())

    def on_validation_batch_end(self, trainer: Trainer, *_: object) -> None:
        if self._epochs:  # Lightning's sanity check before a fit is not in an epoch
            self._epochs[-1].validation.append(time.perf_counter())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epochs[-1].end = _read_synchronized_time(trainer)
        if trainer.is_global_zero:
            timing = summarise_timing(
                self._epochs,
                count_loader_batches(trainer.train_dataloader),
                count_loader_batches(trainer.val_dataloaders),
            )
            self.path.write_text(json.dumps(asdict(timing)))


class EpochMoments:
    """The moments of one epoch, seconds of the clock."""

    def __init__(self, start: float) -> None:
        self.start = self.end = start
        self.passes: list[float] = []
        self.validation: list[float] = []


def summarise_timing(
    epochs: Sequence[EpochMoments], all_passes: int | None = None, all_validation_batches: int | None = None
) -> Timing:
    """Return the timing from the moments of a fit. The first epoch warms up and is left out if there are others."""
    steady = epochs[1:] or epochs
    pass_s, validation_s = (
        _compute_mean_interval([moments.passes for moments in steady]),
        _compute_mean_interval([moments.validation for moments in steady]),
    )
    passes, validated = len(steady[-1].passes), len(steady[-1].validation)
    lengths = [epoch.end - epoch.start for epoch in steady]
    mean = sum(lengths) / len(lengths)
    return Timing(
        pass_s=pass_s,
        validation_s=validation_s,
        epoch_s=max(0.0, mean - passes * pass_s - validated * validation_s),
        epochs=len(epochs),
        passes=passes,
        validation_batches=validated,
        spread=_compute_interval_spread([moments.passes for moments in steady]),
        all_passes=all_passes,
        all_validation_batches=all_validation_batches,
    )


def read_timing(path: Path) -> Timing:
    """Return the timing that a `Clock` has written."""
    return Timing(**json.loads(path.read_text()))


def limit_probe_epoch(
    first: Timing, seconds: float, passes: int | None, validation_batches: int | None, accumulate: int
) -> tuple[int, int]:
    """Return the passes and validation batches of one epoch of a probe that takes about `seconds`.

    Args:
        first: a timing of a few passes.
        passes, validation_batches: of a whole epoch; None where unknown.
        accumulate: passes of one optimizer step: a probe's epoch has whole steps.
    """
    epoch_seconds = seconds / EPOCHS
    fit = max(_MIN_PASSES, int(epoch_seconds * _TRAINING_SHARE / first.pass_s)) if first.pass_s else _MIN_PASSES
    fit = min(fit, passes or fit)
    # Validation gets the time that the passes leave, not a fixed share: a short epoch leaves more.
    rest = max(0.0, epoch_seconds - fit * first.pass_s)
    validated = (
        max(_MIN_VALIDATION_BATCHES, int(rest / first.validation_s)) if first.validation_s else _MIN_VALIDATION_BATCHES
    )
    return max(accumulate, fit // accumulate * accumulate), min(
        validated, validation_batches if validation_batches is not None else validated
    )


def estimate_startup_seconds(fit_seconds: float, first: Timing, steady: Timing) -> float:
    """Return the seconds that a run takes once: set-up, Lightning's sanity check, and first steps, which are slower.

    Args:
        fit_seconds: the whole time of a first short fit.
        first: its timing, with the number of its passes.
        steady: a timing after the warm-up.
    """
    did = first.passes * steady.pass_s + first.validation_batches * steady.validation_s + steady.epoch_s
    return max(0.0, fit_seconds - first.epochs * did)


def estimate_run_seconds(timing: Timing, plan: RunLength, startup_seconds: float) -> float:
    """Return the seconds of a whole run.

    Args:
        startup_seconds: seconds of the parts that happen once.
    """
    return (
        startup_seconds
        + plan.passes * timing.pass_s
        + plan.validations * plan.validation_batches * timing.validation_s
        # `epoch_s` includes checkpoints, which may be saved after each validation: the larger of both counts.
        + max(plan.epochs, plan.validations) * timing.epoch_s
    )


def _compute_mean_interval(moments: Sequence[Sequence[float]]) -> float:
    """Return the mean seconds between two moments of the same epoch; 0 if there are none."""
    spans = [(epoch[-1] - epoch[0], len(epoch) - 1) for epoch in moments if len(epoch) > 1]
    count = sum(number for _, number in spans)
    return sum(span for span, _ in spans) / count if count else 0.0


def _compute_interval_spread(moments: Sequence[Sequence[float]]) -> float:
    """Return half the range of the mean interval over both halves of each epoch, as a share of their mean."""
    halves = [half for epoch in moments for half in (epoch[: len(epoch) // 2 + 1], epoch[len(epoch) // 2 :])]
    means = [mean for half in halves if (mean := _compute_mean_interval([half]))]
    return (max(means) - min(means)) / 2 / (sum(means) / len(means)) if means else 0.0


def _read_synchronized_time(trainer: Trainer) -> float:
    """Return the time after the accelerator has finished its queued work."""
    if trainer.strategy.root_device.type == "cuda":
        torch.cuda.synchronize(trainer.strategy.root_device)
    return time.perf_counter()


def count_loader_batches(loaders: object) -> int | None:
    """Return the number of batches of a loader, or of several together; None if one has no length."""
    every: Sequence[Any] = loaders if isinstance(loaders, list | tuple) else [loaders]
    try:
        lengths = [len(loader) for loader in every if loader is not None]
    except (TypeError, NotImplementedError):
        return None
    return sum(lengths) if lengths and all(math.isfinite(length) for length in lengths) else None


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
