"""The checkpoint callback: keeps the best by the run's metric, the last, and periodic ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from mlscale.config.metric_direction import find_total_loss
from mlscale.errors import MLScaleError
from mlscale.train.checkpoint.failed_saves import has_last_save_failed
from mlscale.train.checkpoint.step_boundary import is_accumulating
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


class Checkpoints(ModelCheckpoint):
    """A ModelCheckpoint that keeps the best by a metric, the last epoch's, and one of every N steps or minutes.

    Lightning's own `save_last` follows the metric: where an epoch is not better, `last.ckpt` stays as it was. Here it
    is that of the last epoch. Inside an epoch, which may last for days, `every_n_steps` and `every_n_minutes` save
    `step=<N>.ckpt`. All is saved at boundaries between two steps (see `step_boundary.py`).

    Of validations that are equally good by the metric, the one with the lower validation loss is kept: an accuracy of
    few samples has many ties. That is where one best is kept, and the validation logs a loss.

    Args:
        dirpath: the folder.
        filename: name of the best one, with Lightning's placeholders: `{epoch}`, `{step}`, or a metric. Where several
            are kept, a name without one gets `-{epoch}-{step}`: under one name each would replace the one before.
        monitor: the metric; None keeps the latest epoch's under that name.
        mode: min or max, whichever of the metric is better.
        save_top_k: how many of the best to keep; -1 for all, 0 for none.
        save_last: whether to keep the last epoch's.
        every_n_steps: optimizer steps between two periodic ones; None for none.
        every_n_minutes: minutes between two periodic ones; None for none.
        keep: how many periodic ones to keep, the latest; -1 for all.
        save_weights_only: whether the best hold the weights alone: smaller, but a run can't be resumed from them.
        auto_insert_metric_name: whether `{epoch}` in `filename` becomes `epoch=3` or `3`.
        enable_version_counter: whether a name that exists becomes `best-v1` and so on; always where several are kept
            under a name that has no `{step}`.
        every_n_epochs: epochs between two checks of the metric.
        save_on_train_epoch_end: whether to check the metric after an epoch instead of after each validation; by
            default as Lightning chooses.
        verbose: whether to print a message each time the metric improves.
        asynchronous: whether the training continues while a checkpoint is written, from a copy in host memory. It
            applies to other checkpoint callbacks of the run, too.

    Raises:
        MLScaleError: an interval or a count is not positive.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = "best",
        monitor: str | None = None,
        mode: str = "min",
        save_top_k: int = 1,
        save_last: bool = True,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        keep: int = 1,
        save_weights_only: bool = False,
        auto_insert_metric_name: bool = True,
        enable_version_counter: bool = False,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        verbose: bool = False,
        asynchronous: bool = True,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename=_distinguish_files(filename, save_top_k),
            monitor=monitor,
            mode=mode,
            save_top_k=save_top_k,
            save_weights_only=save_weights_only,
            auto_insert_metric_name=auto_insert_metric_name,
            enable_version_counter=enable_version_counter or _may_repeat(filename, save_top_k),
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=save_on_train_epoch_end,
            verbose=verbose,
        )
        _require_positive("every_n_steps", every_n_steps)
        _require_positive("every_n_minutes", every_n_minutes)
        _require_positive("keep", None if keep == -1 else keep)
        self.keeps_last = save_last
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.keep = keep
        self.asynchronous = asynchronous
        self._saved_at = 0  # the optimizer step of the last periodic one
        self._periodic: list[str] = []  # names that this callback wrote; other such files are never removed
        self._clock = SharedClock()
        self.final_saved: bool | None = None  # whether `last.ckpt` is the state at the fit's end; None: not due
        self._loss_of_best: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._saved_at = trainer.global_step
        self._clock.restart_clock()

    def state_dict(self) -> dict[str, Any]:
        # How long ago the last save was is not part of it: a resumed run starts at a save.
        return super().state_dict() | {"periodic": list(self._periodic), "loss_of_best": self._loss_of_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._periodic = list(state_dict.get("periodic", []))
        self._loss_of_best = state_dict.get("loss_of_best")

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether `current` is one of the best, and so is saved; all ranks return the same."""
        better = super().check_monitor_top_k(trainer, current)
        if current is None or self.save_top_k != 1:
            return better
        name = find_total_loss(trainer.callback_metrics)
        loss = float(trainer.callback_metrics[name]) if name else None
        if not better:
            tied = self.best_model_score is not None and bool(current == self.best_model_score)
            lower = loss is not None and self._loss_of_best is not None and loss < self._loss_of_best
            # Decided by all ranks together: a save is a collective, so a rank that saved alone would wait forever.
            better = trainer.strategy.reduce_boolean_decision(tied and lower)
        if better:
            self._loss_of_best = loss
        return better

    def on_step_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a periodic checkpoint where it is due."""
        if self.every_n_steps is None and self.every_n_minutes is None:
            return
        if is_accumulating(trainer) or trainer.global_step == self._saved_at or trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by a connector
            return
        step = trainer.global_step
        # Not `step % every == 0`: with manual optimization a batch may take several steps and jump over the multiple.
        due = self.every_n_steps is not None and step // self.every_n_steps > self._saved_at // self.every_n_steps
        if self.every_n_minutes is not None:  # on every rank, since it is a collective
            due |= self._clock.has_elapsed(trainer, 60 * self.every_n_minutes)
        if due:
            self._save_periodic(trainer)

    def on_epoch_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save `last.ckpt`."""
        if self.keeps_last and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by a connector
            self.final_saved = False
            self._save_epoch(trainer)

    # This method and `_save_periodic` are wrapped before a fit (`failed_saves.py`): where the save fails, at once or
    # later in the background, `final_saved` and `_periodic` are as before.
    def _save_epoch(self, trainer: Trainer) -> None:
        self.final_saved = True
        trainer.save_checkpoint(self._build_path(self.CHECKPOINT_NAME_LAST))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save `last.ckpt` of a resumed run that has no step left, and was killed before it could save it."""
        resumed_from = trainer.ckpt_path
        if not self.keeps_last or self.final_saved is not None or not resumed_from:
            return
        last = Path(self._build_path(self.CHECKPOINT_NAME_LAST))
        if trainer.is_global_zero and not _is_same_file(Path(resumed_from), last):
            # The run was resumed from the state at its end, and nothing has been computed since: a copy is enough.
            trainer.strategy.checkpoint_io.save_checkpoint(load_checkpoint_file(resumed_from), last)
        self.final_saved = not has_last_save_failed(trainer)

    def _save_periodic(self, trainer: Trainer) -> None:
        name = f"step={trainer.global_step}"
        # Listed before the save: the checkpoint then lists itself, and a run resumed from it removes it in its turn.
        self._periodic = [*(other for other in self._periodic if other != name), name]
        self._saved_at = trainer.global_step  # one that fails is tried again when the next is due
        self._clock.restart_clock()
        trainer.save_checkpoint(self._build_path(name))
        if self.keep != -1:
            # Old ones are removed only after the new one is on the disk: there is always one to resume from. A list
            # that was restored may name files that were removed after that checkpoint was saved.
            for old in self._periodic[: -self.keep]:
                if trainer.is_global_zero and Path(self._build_path(old)).exists():
                    trainer.strategy.remove_checkpoint(self._build_path(old))
            self._periodic = self._periodic[-self.keep :]

    def _build_path(self, stem: str) -> str:
        return str(Path(str(self.dirpath)) / f"{stem}{self.FILE_EXTENSION}")


def _distinguish_files(filename: str | None, count: int) -> str | None:
    """Return a name that is another one for each of several checkpoints."""
    is_shared = filename is not None and "{" not in filename and count not in (0, 1)
    return f"{filename}-{{epoch}}-{{step}}" if is_shared else filename


def _may_repeat(filename: str | None, count: int) -> bool:
    """Return whether several checkpoints may get one name: two validations of an epoch by `{epoch}`, equal metrics."""
    return filename is not None and "{" in filename and "{step" not in filename and count not in (0, 1)


def _is_same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def _require_positive(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise MLScaleError(
            f"{name} is {value}",
            where=f"callbacks.checkpoint.{name}",
            fix=f"callbacks.checkpoint.{name}=1, or more" + ("; -1 keeps all" if name == "keep" else "; null for none"),
        )


_POLL_SECONDS = 1.0  # between two reads of the clock that all ranks share
# An upper bound of the steps between two reads: later steps may be slower than the measured ones.
_MAX_STEPS = 200


class SharedClock:
    """A clock of seconds since its last restart, the same on all ranks. The first rank broadcasts about once a second:
    the number of steps between two broadcasts follows from the time that a step takes."""

    def __init__(self) -> None:
        self._started = self._read_at = time.monotonic()
        self._steps = self._left = 1

    def restart_clock(self) -> None:
        """Count from now."""
        self._started = time.monotonic()

    def has_elapsed(self, trainer: Trainer, seconds: float) -> bool:
        """Return whether so many seconds have passed since the restart, by the first rank's clock and `seconds`.

        A collective. False at steps at which the clock is not read.
        """
        if trainer.world_size == 1:
            return time.monotonic() - self._started >= seconds
        self._left -= 1
        if self._left:
            return False
        now = time.monotonic()
        per_step = (now - self._read_at) / self._steps
        # The number of steps is broadcast too: the ranks' clocks differ, and all must enter the next broadcast at once.
        elapsed, steps = trainer.strategy.broadcast(
            (now - self._started >= seconds, max(1, min(_MAX_STEPS, int(_POLL_SECONDS / max(per_step, 1e-6)))))
        )
        self._read_at, self._steps, self._left = now, steps, steps
        return bool(elapsed)
