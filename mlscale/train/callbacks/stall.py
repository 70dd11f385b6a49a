"""Stall detection: a run that takes no steps is reported with all threads' stacks, and ended if so configured."""

from __future__ import annotations

import contextlib
import faulthandler
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import RunningStage

from mlscale.errors import MLScaleError
from mlscale.train import thread_stacks as stacks
from mlscale.train.callbacks.stall_report import Rank, RankProgress, StallReport, report_stall, withdraw_request
from mlscale.train.lightning.trainer_parts import get_callbacks

_LONGEST_POLL_SECONDS = 1.0  # between two checks of the counters
_STEPS_AT_LEAST = 5  # a run whose steps take minutes gets that many of them
_STEP_TIMES = 64
_SUSPENDED = 10  # checks that did not happen: the process was stopped, or the machine slept

_end: Callable[[MLScaleError, StallReport], None] | None = None


@contextlib.contextmanager
def set_stall_handler(end: Callable[[MLScaleError, StallReport], None] | None) -> Iterator[None]:
    """Let `end` end a stalled run inside the block; it is called in another thread than the one that hangs. None: the
    run can't be ended from this process."""
    global _end
    before, _end = _end, end
    try:
        yield
    finally:
        _end = before


class Stall(Callback):
    """A callback that watches, from a thread of its own, whether optimizer steps are taken. A step costs nothing.

    No step for `factor` times the median time of a step is a stall, but not before `least_s` seconds, and after
    `after_s` at the latest (or five steps, where one takes longer). Before the first step, in which models are
    compiled, `after_s` alone counts. Validation, saving, work after the fit and breakpoints are not stalls.

    Then, once per stall: the position of each rank, and the stacks of all threads of all ranks of this machine, on
    standard error and in `logs/stall-<n>.txt` of the run. A process in which stuck native code holds the GIL writes its
    stacks to standard error alone, after `least_s`. Callbacks that have a method `on_stall`, of (report), are called on
    one rank.

    Args:
        factor: median step times without a step.
        least_s: seconds before which nothing is a stall.
        after_s: seconds after which it is one in any case.
        stop: whether to end the run with exit code 5; otherwise the stall is reported, and its end.
    """

    def __init__(self, factor: float = 50.0, least_s: float = 60.0, after_s: float = 600.0, stop: bool = False) -> None:
        if factor <= 0 or not 0 < least_s <= after_s:
            raise MLScaleError(
                f"callbacks.stall has factor={factor:g}, least_s={least_s:g}, after_s={after_s:g}",
                where="callbacks.stall",
                why="all are above 0, and least_s is no more than after_s",
                fix="callbacks.stall.factor=50 callbacks.stall.least_s=60 callbacks.stall.after_s=600",
            )
        self.factor, self.least_s, self.after_s, self.stop = factor, least_s, after_s, stop
        self._watch: _StallWatch | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_watch()
        self._watch = _StallWatch(self, trainer)
        # Wrapped, since Lightning has no state for saving: a slow disk is not a stall.
        save = trainer.save_checkpoint

        def save_checkpoint(*arguments: Any, **options: Any) -> None:
            watch = self._watch
            if watch is not None:
                # A bool that one thread writes and another one reads needs no lock.
                watch.saving = True
            try:
                save(*arguments, **options)
            finally:
                if watch is not None:
                    watch.saving = False

        trainer.save_checkpoint = save_checkpoint  # type: ignore[method-assign]  # for this trainer alone
        self._watch.start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_watch()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end_watch()

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop_watching()
            self._watch = None


class _StallWatch(threading.Thread):
    """A thread that reads the trainer's counters, which costs the training nothing."""

    def __init__(self, settings: Stall, trainer: Trainer) -> None:
        super().__init__(name="mlscale-stall", daemon=True)
        self.saving = False
        self._settings, self._trainer = settings, trainer
        self._poll_seconds = min(_LONGEST_POLL_SECONDS, settings.least_s / 5)
        self._stopped = threading.Event()
        self._times: deque[float] = deque(maxlen=_STEP_TIMES)
        self._reported_s = 0.0  # seconds without a step when a stall was reported; 0 while there is none
        self._ranks = _gather_ranks(trainer)
        self._folder = Path(trainer.default_root_dir) / "logs"
        if trainer.is_global_zero:
            withdraw_request(self._folder)  # of an earlier attempt that was killed during its request

    def stop_watching(self) -> None:
        self._stopped.set()
        # A stalled run may be ended from this very thread, and a thread can't join itself.
        if threading.current_thread() is not self:
            self.join()

    def run(self) -> None:
        try:
            self._watch_steps()
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _watch_steps(self) -> None:
        stacks.restart_backstop(self._settings.least_s)
        last, since, looked = self._count_batches(), time.monotonic(), time.monotonic()
        while not self._stopped.wait(self._poll_seconds):
            stacks.restart_backstop(self._settings.least_s)
            now, counts = time.monotonic(), self._count_batches()
            suspended = now - looked > max(_SUSPENDED * self._poll_seconds, 5.0)
            looked = now
            # Only an uninterrupted stretch of training without a step counts: anything else starts the clock again.
            if counts != last or self._get_phase() != "training" or suspended:
                steps = counts[1] - last[1]
                if steps > 0 and not suspended:
                    self._times.append((now - since) / steps)
                if counts != last or suspended:
                    self._note_progress(now - since)
                last, since = counts, now
            answer = RankProgress(self._get_phase(), *counts, now - since)
            self._ranks.write_answer(self._folder, answer)  # another rank may have requested it
            if not self._reported_s and now - since > self._compute_limit() and self._get_phase() == "training":
                self._reported_s = now - since
                self._report_stall(answer)

    def _count_batches(self) -> tuple[int, int]:
        """Return the batches begun and completed, of the whole run."""
        progress = self._trainer.fit_loop.epoch_loop.batch_progress.total
        return progress.ready, progress.completed

    def _get_phase(self) -> str:
        if self.saving:
            return "saving a checkpoint"
        stage = self._trainer.state.stage
        return "training" if stage == RunningStage.TRAINING else str(getattr(stage, "value", "set-up"))

    def _compute_limit(self) -> float:
        settings = self._settings
        if not self._times:
            return settings.after_s
        # The median: one slow step, such as a compilation, must not lengthen the limit.
        step = statistics.median(self._times)
        return max(settings.least_s, min(settings.factor * step, max(settings.after_s, _STEPS_AT_LEAST * step)))

    def _report_stall(self, answer: RankProgress) -> None:
        median = statistics.median(self._times) if self._times else None
        stall = report_stall(self._ranks, self._folder, answer, median)
        if stall is None:  # another rank reports it, or a debugger is active
            return
        stall.print_report()
        for callback in get_callbacks(self._trainer):
            if hasattr(callback, "on_stall"):
                callback.on_stall(stall)
        if self._settings.stop and _end is not None:
            _end(stall.build_stall_error(), stall)

    def _note_progress(self, seconds: float) -> None:
        if self._reported_s and self._trainer.is_global_zero:
            StallReport.print_stall_warning(f"the run continues after {seconds:,.0f} s")
        self._reported_s = 0.0


def _gather_ranks(trainer: Trainer) -> Rank:
    """Return this rank with the facts about all others. A collective: every rank must call it."""
    own = Rank.create_local(trainer.global_rank)
    if trainer.world_size == 1:
        return own
    everybody: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(everybody, own.facts)
    return own.add_others(everybody)
