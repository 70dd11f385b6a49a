"""Stall detection: a rank that takes no steps writes the stacks of its threads, and ends the run if so configured."""

from __future__ import annotations

import contextlib
import faulthandler
import socket
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import RunningStage
from tqdm import tqdm

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.host.processes import identify_process
from mlscale.train.lightning.trainer_parts import get_callbacks

_LONGEST_POLL_SECONDS = 1.0  # between two checks of the counters
_STEPS_AT_LEAST = 5  # a run whose steps take minutes gets that many of them
_STEP_TIMES = 64
_SUSPENDED = 10  # checks that did not happen: the process was stopped, or the machine slept
_LATER_SECONDS = 5.0  # by which other ranks end a run after the first one, which may be stuck in native code
_DEBUGGERS = ("pdb.py", "bdb.py", "pydevd.py")


@dataclass(frozen=True)
class StallReport:
    """A stall of this rank.

    Attributes:
        sentence: the stall in one sentence.
        path: the file with the stacks; None where it could not be written.
        others: the other ranks of this machine, `pid` and `pid_start` of each.
    """

    sentence: str
    path: Path | None
    others: Sequence[dict[str, Any]] = ()

    def build_stall_error(self) -> MLScaleError:
        """Return the error for a run that is to end."""
        return MLScaleError(
            self.sentence,
            where=str(self.path or ""),
            fix="mlscale runs resume last, from the last checkpoint: callbacks.stall.stop=false only warns",
            exit=Exit.ENVIRONMENT,
        )


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

    Then, once per stall, each rank prints a line, and adds the stacks of its threads to `logs/stall-rank<n>.txt` of the
    run. A process in which stuck native code holds the GIL writes its stacks to standard error, after `least_s`.
    Callbacks that have a method `on_stall`, of (report), are called on the first rank.

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
        self._others = _gather_others(trainer)
        self._path = Path(trainer.default_root_dir) / "logs" / f"stall-rank{trainer.global_rank}.txt"

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
        self._restart_backstop()
        last, since, looked = self._count_batches(), time.monotonic(), time.monotonic()
        while not self._stopped.wait(self._poll_seconds):
            self._restart_backstop()
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
            if not self._reported_s and now - since > self._compute_limit() and self._get_phase() == "training":
                self._reported_s = now - since
                if not _is_in_debugger():
                    self._report_stall(now - since, counts[0])

    def _restart_backstop(self) -> None:
        # If native code holds the GIL until then, no Python thread can report it; that of faulthandler needs none.
        with contextlib.suppress(OSError, ValueError):  # a standard error without a file
            faulthandler.dump_traceback_later(self._settings.least_s, file=sys.__stderr__ or sys.stderr)

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

    def _report_stall(self, idle_s: float, batch: int) -> None:
        took = f"a step takes {statistics.median(self._times):.2g} s" if self._times else "none was taken yet"
        rank = f"rank {self._trainer.global_rank}: " if self._trainer.world_size > 1 else ""
        sentence = f"{rank}no step for {idle_s:,.0f} s in batch {batch:,} of the run, {took}"
        path: Path | None = self._path
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                print(sentence, file=file, flush=True)
                faulthandler.dump_traceback(file)
        except OSError:  # a full disk
            path = None
        _print_warning(f"{sentence}; the stacks of its threads: {path}")
        stall = StallReport(sentence, path, self._others)
        if not self._trainer.is_global_zero:
            time.sleep(_LATER_SECONDS if self._settings.stop else 0)
        for callback in get_callbacks(self._trainer) if self._trainer.is_global_zero else ():
            if hasattr(callback, "on_stall"):
                callback.on_stall(stall)
        if self._settings.stop and _end is not None:
            _end(stall.build_stall_error(), stall)

    def _note_progress(self, seconds: float) -> None:
        if self._reported_s and self._trainer.is_global_zero:
            _print_warning(f"the run continues after {seconds:,.0f} s")
        self._reported_s = 0.0


def _print_warning(text: str) -> None:
    with contextlib.suppress(OSError):
        tqdm.write(f"warning   {text}", file=sys.stderr)


def _is_in_debugger() -> bool:
    """Return whether the main thread is at a breakpoint."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if Path(frame.f_code.co_filename).name in _DEBUGGERS or "debugpy" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _gather_others(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the other ranks of this machine. A collective: every rank must call it."""
    own = {"host": socket.gethostname(), **identify_process()}
    everybody: list[Any] = [own] * trainer.world_size
    if trainer.world_size > 1:
        dist.all_gather_object(everybody, own)
    return [facts for facts in everybody if facts["host"] == own["host"] and facts != own]
