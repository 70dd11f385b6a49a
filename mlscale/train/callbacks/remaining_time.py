"""The remaining time of a run, from the batches that are done and the time that they took."""

from __future__ import annotations

import math
import time

from pytorch_lightning import Trainer


class RemainingTime:
    """An estimate for the whole run; what validations and saves have taken so far counts as a part of each batch.

    A run may end earlier, by early stopping or a limit of time.

    Args:
        trainer: whose training begins now, or is resumed.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._started = time.perf_counter()
        self._first = _count_trained_batches(trainer)

    def estimate_seconds(self, trainer: Trainer) -> float | None:
        """Return the seconds that are left; None before the first batch, and where the run has no known end."""
        total, done = _count_all_batches(trainer), _count_trained_batches(trainer)
        if not math.isfinite(total) or done <= self._first:
            return None
        return max(0.0, total - done) * (time.perf_counter() - self._started) / (done - self._first)


def _count_trained_batches(trainer: Trainer) -> int:
    # Of all epochs, and of the attempts before a resume.
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def _count_all_batches(trainer: Trainer) -> float:
    """Return the batches of the whole run; infinity where neither epochs nor steps limit it."""
    limits = [math.inf]
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * trainer.num_training_batches)
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
    return min(limits)
