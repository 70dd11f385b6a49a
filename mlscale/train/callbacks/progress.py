"""The progress bar: a bar with a line of each epoch above it on a terminal, one line per epoch elsewhere."""

import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from torch import Tensor
from tqdm import tqdm

from mlscale.log_lines import report_metrics
from mlscale.report.text import format_duration
from mlscale.tasks.batch import get_batch_size
from mlscale.train.callbacks.train_metrics import get_detached_loss
from mlscale.train.checkpoint.step_boundary import is_in_epoch


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


_COLUMNS, _ROWS = 100, 20  # of a terminal without a size, such as that of `docker run -t` or `script`
_BAR_COLUMNS = 10  # that facts leave for the bar itself
_METRICS = ("val/accuracy", "val/loss")  # the first that exists is shown where the run's metric is not logged
_MOST_METRICS = 6  # of the validation, in the line of an epoch


class Progress(ProgressBar):
    """A progress bar with epoch, step, the remaining time of the run, loss, the last validation's metric and samples
    per second, on standard error; each epoch leaves a line with its metrics.

    A step costs one read of the clock; the loss is read from the device once per update.

    Args:
        refresh: seconds between two updates on a terminal.
        metric: the metric to show; by default the run's, else accuracy, else the validation loss.
        stream: where to write; by default standard error, as it is when training starts.
    """

    def __init__(self, refresh: float = 0.2, *, metric: str | None = None, stream: TextIO | None = None) -> None:
        super().__init__()
        self.refresh = refresh
        self.metric = metric
        self._stream = stream
        self._out: TextIO = sys.stderr
        self._enabled = True
        self._bar: Any = None  # tqdm has no types
        self._remaining: RemainingTime | None = None
        self._next = 0.0
        self._samples = 0
        self._started = 0.0
        self._paused = 0.0
        self._loss: Tensor | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._out = self._stream or sys.stderr
        self._remaining = RemainingTime(trainer)
        if is_in_epoch(trainer):  # resumed: Lightning does not call the hook of its start again
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._samples, self._loss, self._paused = 0, None, 0.0
        self._started = time.perf_counter()
        self._next = self._started + self.refresh
        # Lightning counts infinitely many batches where the loader has no length.
        total = None if trainer.num_training_batches == float("inf") else int(trainer.num_training_batches)
        if self._enabled and self._out.isatty():
            self._bar = tqdm(
                total=total,
                desc=_format_epoch(trainer),
                file=self._out,
                leave=False,
                dynamic_ncols=_measure_columns(self._out) > 0,
                ncols=None if _measure_columns(self._out) else _COLUMNS,
                nrows=None if _measure_columns(self._out) else _ROWS,
                miniters=0,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}",
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        self._samples += get_batch_size(batch)
        self._loss = get_detached_loss(outputs)
        if (now := time.perf_counter()) >= self._next:
            self._next = now + self.refresh
            if self._bar is not None:
                self._bar.n = batch_idx + 1
                self._bar.set_postfix_str(self._format_bar_facts(trainer, now), refresh=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Validation is left out of samples/s: its start is subtracted here, its end added in `on_validation_end`.
        self._paused -= time.perf_counter()
        if self._bar is not None:
            self._bar.set_description_str(f"{_format_epoch(trainer)} validating")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._paused += time.perf_counter()
        if self._bar is not None:
            self._bar.set_description_str(_format_epoch(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_bar()
        if self._enabled:
            self._print_epoch(trainer, time.perf_counter())

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close_bar()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close_bar()

    def print(self, *args: object, sep: str = " ", **kwargs: object) -> None:
        """Print above the bar."""
        tqdm.write(sep.join(str(arg) for arg in args), file=self._out)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print_epoch(self, trainer: Trainer, now: float) -> None:
        names = [name for name in trainer.callback_metrics if name.startswith("val")]
        facts = [f"step {trainer.global_step}", *self._list_facts(trainer, now, names[:_MOST_METRICS])]
        facts.append(format_duration(now - self._started))
        head = f"{_format_epoch(trainer)}  "
        # A terminal wraps a line that is too long, a file does not.
        columns = (_measure_columns(self._out) or _COLUMNS) if self._out.isatty() else sys.maxsize
        line = f"{head}{_join_fitting(facts, columns - len(head))}"
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}
        counts = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        if self._stream is None and report_metrics(line, **counts, metrics=metrics):
            return
        self._out.write(f"{line}\n")
        self._out.flush()

    def _format_bar_facts(self, trainer: Trainer, now: float) -> str:
        """Return the facts next to the bar, those that fit its line; the remaining time first."""
        left = self._remaining.estimate_seconds(trainer) if self._remaining is not None else None
        facts = [f"{format_duration(left)} left"] if left is not None else []
        facts += self._list_facts(trainer, now)
        counts = 2 * len(str(trainer.num_training_batches))
        used = len(_format_epoch(trainer)) + counts + _BAR_COLUMNS + len("  100% || /, ")
        return _join_fitting(facts, (_measure_columns(self._out) or _COLUMNS) - used)

    def _list_facts(self, trainer: Trainer, now: float, more: Sequence[str] = ()) -> list[str]:
        """Return loss, the metric, `more` metrics and samples/s, as far as they are known."""
        facts, known = [], trainer.callback_metrics
        if self._loss is not None:
            # Lightning has divided the loss by the accumulation.
            facts.append(f"loss {self._loss.item() * trainer.accumulate_grad_batches:.4g}")
        candidates = (self.metric, *_METRICS) if self.metric else _METRICS
        first = next((name for name in candidates if name in known), None)
        names = dict.fromkeys(name for name in (first, *more) if name is not None)
        facts += [f"{name} {known[name].item():.4g}" for name in names]
        if self._samples and (seconds := now - self._started - self._paused) > 0:
            facts.append(f"{self._samples * trainer.world_size / seconds:,.0f} samples/s")
        return facts


def _join_fitting(facts: Sequence[str], columns: int) -> str:
    """Return the facts in one line, without the last ones where it would be longer than `columns`."""
    shown = list(facts)
    while len(shown) > 1 and len(", ".join(shown)) > columns:
        shown.pop()
    return ", ".join(shown)


def _measure_columns(out: TextIO) -> int:
    """Return the width of a terminal, in columns; 0 where it is unknown."""
    try:
        return os.get_terminal_size(out.fileno()).columns
    except (OSError, ValueError):
        return 0


def _format_epoch(trainer: Trainer) -> str:
    last = trainer.max_epochs
    return f"epoch {trainer.current_epoch + 1}" + (f"/{last}" if last is not None and last > 0 else "")
