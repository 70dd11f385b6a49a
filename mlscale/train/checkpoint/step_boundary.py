"""Boundaries of steps and epochs: the points at which a run can be saved, stopped, and resumed bitwise identically.

Lightning saves inside its hooks: then the module's own hook, the loggers' step, a validation or a scheduler may still
be outstanding, and a resumed run does without them. Here there are two boundaries, after all that belongs to them:

- of a step: after its hooks, its log entries, a validation that was due, and the schedulers that use its metrics;
- of an epoch: after its hooks, log entries and schedulers.

Callbacks that have a method `on_step_boundary` or `on_epoch_boundary`, of (trainer, module), are called there. A
`ModelCheckpoint`, built-in or a user's, decides in Lightning's hooks, by the same metrics, but saves there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from mlscale.train.lightning.trainer_parts import get_callbacks

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

_STEP, _EPOCH = "on_step_boundary", "on_epoch_boundary"


def install_boundaries(trainer: Trainer) -> None:
    """Call a trainer's callbacks at boundaries, and defer its checkpoints to them; call before fit."""
    deferred = _DeferredSaves(trainer)
    # Saves that are due come before the callbacks' hooks: one of these may stop the run by an error.
    append_actions(trainer.fit_loop.epoch_loop, deferred.run_step_saves, partial(_call_hook, trainer, _STEP))
    append_actions(trainer.fit_loop, deferred.run_epoch_saves, partial(_call_hook, trainer, _EPOCH))


def is_accumulating(trainer: Trainer) -> bool:
    """Return whether gradients of an unfinished optimizer step have accumulated: a checkpoint does not hold them."""
    return bool(trainer.fit_loop.epoch_loop._should_accumulate())


def is_in_epoch(trainer: Trainer) -> bool:
    """Return whether an epoch has begun and not ended, which includes the boundary of its last step."""
    progress = trainer.fit_loop.epoch_progress.current
    return bool(progress.completed < progress.ready)


def append_actions(loop: Any, *actions: Callable[[], None]) -> None:
    """Call `actions` at each boundary of a loop, after what Lightning and earlier actions do there."""
    before = loop.on_advance_end

    def on_advance_end(*arguments: object) -> None:
        # Lightning's own method first: it runs the validation that is due and steps the plateau schedulers.
        before(*arguments)
        for action in actions:
            action()

    loop.on_advance_end = on_advance_end


def _call_hook(trainer: Trainer, hook: str) -> None:
    for callback in get_callbacks(trainer):
        if (method := getattr(callback, hook, None)) is not None:
            method(trainer, trainer.lightning_module)


class _DeferredSaves:
    """The calls of the trainer's checkpoint callbacks that wait for the next boundary."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._of_step: list[Callable[[], None]] = []
        self._of_epoch: list[Callable[[], None]] = []
        for callback in get_callbacks(trainer):
            if isinstance(callback, ModelCheckpoint):
                # Without either it does nothing after a batch, and deferring it would only cost time at every step.
                if callback._every_n_train_steps >= 1 or callback._train_time_interval is not None:
                    self._defer_hook(callback, "on_train_batch_end", self._of_step)
                self._defer_hook(callback, "on_validation_end", self._of_step)
                self._defer_hook(callback, "on_train_epoch_end", self._of_epoch)

    def run_step_saves(self) -> None:
        """Save what is due after a step; in the middle of accumulation it waits for the optimizer's step."""
        if self._of_step and not is_accumulating(self._trainer):
            self._run_calls(self._of_step)

    def run_epoch_saves(self) -> None:
        """Save what is due after an epoch."""
        if self._of_epoch:
            with _reopen_epoch(self._trainer):
                self._run_calls(self._of_epoch)

    def _run_calls(self, calls: list[Callable[[], None]]) -> None:
        # Emptied before the calls: after one that raises the rest is not repeated at the next boundary.
        due, calls[:] = list(calls), []
        for call in due:
            call()

    def _defer_hook(self, callback: ModelCheckpoint, hook: str, calls: list[Callable[[], None]]) -> None:
        original = getattr(callback, hook)

        def defer_call(*arguments: object) -> None:
            # Outside a fit boundaries do not occur: the call is made at once.
            if self._trainer.state.fn == TrainerFn.FITTING and not self._trainer.sanity_checking:
                calls.append(lambda: original(*arguments))
            else:
                original(*arguments)

        setattr(callback, hook, defer_call)


@contextlib.contextmanager
def _reopen_epoch(trainer: Trainer) -> Iterator[None]:
    """Count the ended epoch as the current one, as checkpoint callbacks do; `mark_epoch_ended` corrects what
    they save."""
    loop: Any = trainer.fit_loop  # mlscale adds an attribute
    progress = loop.epoch_progress
    for counter in (progress.current, progress.total):
        counter.completed -= 1
    loop._at_epoch_boundary = True
    try:
        yield
    finally:
        for counter in (progress.current, progress.total):
            counter.completed += 1
        del loop._at_epoch_boundary


def mark_epoch_ended(trainer: Trainer, checkpoint: dict[str, Any]) -> None:
    """Count the epoch as ended in a checkpoint that is saved at its boundary."""
    if getattr(trainer.fit_loop, "_at_epoch_boundary", False):
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for counter in ("current", "total"):
            progress[counter]["completed"] += 1
        checkpoint["epoch"] += 1
