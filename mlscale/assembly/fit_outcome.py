"""The results of a fit: metrics, times, memory, the best checkpoint, and whether a resumed fit is bitwise identical."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from mlscale.errors import MLScaleError
from mlscale.train.after_fit import AfterFitResult
from mlscale.train.callbacks.checkpoints import Checkpoints
from mlscale.train.callbacks.stopwatch import Stopwatch
from mlscale.train.checkpoint.exact_resume import ExactResume
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.lightning.trainer_parts import get_callbacks
from mlscale.train.strategies import has_stable_sum_order

T = TypeVar("T")


@dataclass(frozen=True)
class FitOutcome:
    """The results of a fit.

    Attributes:
        metrics: the last value of every logged metric, by name.
        seconds: wall time of the fit.
        train_seconds: of these, in training: without set-up and validation.
        steps: optimizer steps of the run.
        samples: training samples of this fit over all ranks; None if the data does not report its batch size.
        peak_memory_bytes: the most that a process of the run has used, of all ranks.
        best: path of the best checkpoint, and the value of the run's metric there.
        failed_saves: checkpoints that could not be saved because the disk was full.
        resumed_step: the optimizer step that it resumed from; None for a new fit.
        inexact: why a resumed fit may not be bitwise identical to one without the interruption, a phrase each; empty
            where it is, as far as is known: on as many ranks as before, with the same threads, libraries and CPU, from
            a checkpoint that holds all of their state, on a CPU or with deterministic algorithms.
        replayed: batches that were loaded again, because their loader has no state of its own.
        other_batches: whether these are not those before the interruption.
        joined: metrics of what joined the run from outside and came after the fit.
        remarks: the same in words.
        met: whether all requirements on these are met.
    """

    metrics: dict[str, float]
    seconds: float
    train_seconds: float
    steps: int
    samples: int | None
    peak_memory_bytes: int
    best: tuple[str, float] | None
    failed_saves: int = 0
    resumed_step: int | None = None
    inexact: tuple[str, ...] = ()
    replayed: int = 0
    other_batches: bool = False
    joined: dict[str, float] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    met: bool = True

    def add_reports(self, reports: Sequence[AfterFitResult]) -> FitOutcome:
        """Return the outcome with what joined the run from outside reports after the fit."""
        return replace(
            self,
            joined={name: value for report in reports for name, value in report.metrics.items()},
            remarks=tuple(report.remark for report in reports if report.remark),
            met=all(report.ok for report in reports),
        )


def find_lost_state(trainer: pl.Trainer) -> MLScaleError | None:
    """Return the error for a fit whose final state should be in a checkpoint and is not: such a run is not done."""
    io = trainer.strategy.checkpoint_io
    if not isinstance(io, VerifiedCheckpointIO):
        return None
    due = [callback.final_saved for callback in get_callbacks(trainer) if isinstance(callback, Checkpoints)]
    known = [saved for saved in due if saved is not None]
    if io.not_uploaded:
        return io.explain_lost_state()
    lost = not all(known) if known else io.unsaved  # a user's own callbacks: the last save that was tried
    return io.explain_lost_state() if lost else None


def collect_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the last value of every logged metric, and what the data has counted."""
    counted: dict[str, float] = getattr(getattr(trainer, "datamodule", None), "counted", {})
    return {name: float(value) for name, value in trainer.callback_metrics.items()} | counted


def build_fit_outcome(cfg: DictConfig, trainer: pl.Trainer, seconds: float) -> FitOutcome:
    watch, resume = find_callback(trainer, Stopwatch), find_callback(trainer, ExactResume)
    batch = (cfg.get("data") or {}).get("batch_size")
    io = trainer.strategy.checkpoint_io
    best = None
    checkpoint = trainer.checkpoint_callback
    if isinstance(checkpoint, pl.callbacks.ModelCheckpoint) and checkpoint.best_model_score is not None:
        best = (checkpoint.best_model_path, float(checkpoint.best_model_score))
    return FitOutcome(
        metrics=collect_metrics(trainer),
        seconds=seconds,
        train_seconds=watch.seconds,
        steps=trainer.global_step,
        samples=watch.steps * batch if batch else None,
        peak_memory_bytes=watch.peak_memory_bytes,
        best=best,
        resumed_step=resume.resumed_step,
        inexact=tuple(_explain_inexactness(trainer, resume)),
        replayed=resume.replayed,
        other_batches=resume.other_batches,
        failed_saves=len(io.failed) if isinstance(io, VerifiedCheckpointIO) else 0,
    )


def find_callback(trainer: pl.Trainer, kind: type[T]) -> T:
    return next(callback for callback in get_callbacks(trainer) if isinstance(callback, kind))


def _explain_inexactness(trainer: pl.Trainer, resume: ExactResume) -> list[str]:
    """Return the reasons why a resumed fit may not be bitwise identical; empty for a new fit."""
    if resume.resumed_step is None:
        return []
    reasons = list(resume.inexact)
    # The same step gives the same bits on a CPU, for one number of threads.
    if trainer.strategy.root_device.type != "cpu" and not torch.are_deterministic_algorithms_enabled():
        reasons.append("no trainer.deterministic=true")
    if not has_stable_sum_order(trainer.strategy, trainer.world_size):
        reasons.append("this strategy adds up the first step's gradients in another order")
    return reasons
