"""Between two steps: the moments at which a run can be saved, stopped, and gone on from to the bit.

Lightning saves inside its hooks: then the module's own hook, the loggers' step, a validation or a scheduler may still
be outstanding, and a resumed run does without them. Here there are two boundaries, after all that belongs to them:

- of a step: after its hooks, its log entries, a validation that was due, and the schedulers that look at it;
- of an epoch: after its hooks, log entries and schedulers.

Callbacks that have a method `on_step_boundary` or `on_epoch_boundary`, of (trainer, module), are called there. A
`ModelCheckpoint`, ours or a user's, decides when Lightning lets it, and looks at the same metrics, but saves there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

_STEP, _EPOCH = "on_step_boundary", "on_epoch_boundary"


def apply(trainer: Any) -> None:
    """Let a trainer's callbacks know of boundaries, and its checkpoints be saved at them; call before fit."""
    deferred = _Deferred(trainer)
    _after(trainer.fit_loop.epoch_loop, deferred.run, partial(_tell, trainer, _STEP))
    _after(trainer.fit_loop, deferred.run_in_epoch, partial(_tell, trainer, _EPOCH))


def inside_accumulation(trainer: Any) -> bool:
    """Whether gradients of an optimizer step that is not done yet are waiting: they are in no checkpoint."""
    return bool(trainer.fit_loop.epoch_loop._should_accumulate())


def in_epoch(trainer: Any) -> bool:
    """Whether an epoch has begun and not ended; at its last step's boundary it has not."""
    progress = trainer.fit_loop.epoch_progress.current
    return bool(progress.completed < progress.ready)


def _after(loop: Any, *actions: Callable[[], None]) -> None:
    before = loop.on_advance_end

    def on_advance_end(*arguments: Any) -> None:
        before(*arguments)
        for action in actions:
            action()

    loop.on_advance_end = on_advance_end


def _tell(trainer: Any, hook: str) -> None:
    for callback in trainer.callbacks:
        if (tell := getattr(callback, hook, None)) is not None:
            tell(trainer, trainer.lightning_module)


class _Deferred:
    """What the trainer's checkpoint callbacks were called for, until the next boundary."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._of_step: list[Callable[[], None]] = []
        self._of_epoch: list[Callable[[], None]] = []
        for callback in trainer.callbacks:
            if isinstance(callback, ModelCheckpoint):
                if callback._every_n_train_steps >= 1 or callback._train_time_interval is not None:
                    self._defer(callback, "on_train_batch_end", self._of_step)
                self._defer(callback, "on_validation_end", self._of_step)
                self._defer(callback, "on_train_epoch_end", self._of_epoch)

    def run(self) -> None:
        """Save what is due after a step; in the middle of accumulation it waits for the optimizer's step."""
        if self._of_step and not inside_accumulation(self._trainer):
            self._run(self._of_step)

    def run_in_epoch(self) -> None:
        """Save what is due after an epoch."""
        if self._of_epoch:
            with _as_in_epoch(self._trainer):
                self._run(self._of_epoch)

    def _run(self, calls: list[Callable[[], None]]) -> None:
        due, calls[:] = list(calls), []
        for call in due:
            call()

    def _defer(self, callback: ModelCheckpoint, hook: str, calls: list[Callable[[], None]]) -> None:
        original = getattr(callback, hook)

        def later(*arguments: Any) -> None:
            if self._trainer.state.fn == TrainerFn.FITTING and not self._trainer.sanity_checking:
                calls.append(lambda: original(*arguments))
            else:
                original(*arguments)

        setattr(callback, hook, later)


@contextlib.contextmanager
def _as_in_epoch(trainer: Any) -> Iterator[None]:
    """A checkpoint callback counts the epoch that has just ended as the current one; `as_ended` mends what it saves."""
    progress = trainer.fit_loop.epoch_progress
    for counter in (progress.current, progress.total):
        counter.completed -= 1
    trainer.fit_loop._at_epoch_boundary = True
    try:
        yield
    finally:
        for counter in (progress.current, progress.total):
            counter.completed += 1
        del trainer.fit_loop._at_epoch_boundary


def as_ended(trainer: Any, checkpoint: dict[str, Any]) -> None:
    """Count the epoch as ended in a checkpoint that is saved at its boundary."""
    if getattr(trainer.fit_loop, "_at_epoch_boundary", False):
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]
        for counter in ("current", "total"):
            progress[counter]["completed"] += 1
        checkpoint["epoch"] += 1
