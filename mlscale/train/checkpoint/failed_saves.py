"""Saves by Lightning's checkpoint callbacks: in the background, and undone in their records where the disk is full.

A `ModelCheckpoint` notes the new best before it saves it, removes the old one after, and notifies the loggers. When the
save failed (see `lightning_io.py`) none of this must happen: the old one is still the best that exists. A save in the
background ends later; until then its callback's records count as true, and they are undone if it fails. All ranks learn
of that at the same moments, which are called settling: before the next save, at the end of the fit, and in a single
process at the first step boundary after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger

from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.checkpoint.step_boundary import append_actions
from mlscale.train.lightning.trainer_parts import get_callbacks

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

# What saves change in a ModelCheckpoint, all private.
_RECORDS = (
    "current_score",
    "best_k_models",
    "kth_best_model_path",
    "kth_value",
    "best_model_path",
    "best_model_score",
    "last_model_path",
    "_last_checkpoint_saved",
    "_last_global_step_saved",
    "_loss_of_best",
)
# Methods of ModelCheckpoint, and of `Checkpoints`, that save, and the attributes that each of them changes.
_SAVE_METHODS = {
    "_save_topk_checkpoint": _RECORDS,
    "_save_last_checkpoint": _RECORDS,
    "_save_periodic": ("_periodic",),
    "_save_epoch": ("final_saved",),
    "on_exception": _RECORDS,
}
# A subclass that overrides one of these may read the file right after the save.
_OWN_METHODS = (
    "_save_topk_checkpoint",
    "_save_last_checkpoint",
    "_save_monitor_checkpoint",
    "_save_none_monitor_checkpoint",
    "_update_best_and_save",
    "_save_checkpoint",
    "_remove_checkpoint",
    "on_train_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
)


class _NotSavedError(Exception):
    """The error for a full disk: the code that saves must not continue as if it had saved."""


def guard_checkpoint_callbacks(trainer: Trainer) -> None:
    """Let a trainer's checkpoint callbacks save in the background, and undo their records of saves that failed; call
    before fit."""
    guard = _SaveGuard(trainer)
    callbacks = [callback for callback in get_callbacks(trainer) if isinstance(callback, ModelCheckpoint)]
    by_default = all(getattr(callback, "asynchronous", True) for callback in callbacks)
    for callback in callbacks:
        in_background = getattr(callback, "asynchronous", by_default) and _leaves_saving_to_lightning(callback)
        for name in _SAVE_METHODS:
            if hasattr(callback, name):
                setattr(callback, name, guard.wrap_save(callback, name, in_background=in_background))
    for logger in trainer.loggers:
        # Lightning's own does nothing; others read the file, and so must wait for it.
        if type(logger).after_save_checkpoint is not Logger.after_save_checkpoint:
            logger.after_save_checkpoint = guard.defer_notification(logger.after_save_checkpoint)  # type: ignore[method-assign]
    append_actions(trainer.fit_loop.epoch_loop, guard.settle_finished)
    _settle_around(trainer.fit_loop, "on_run_end", trainer)


def settle_saves(trainer: Trainer) -> None:
    """Wait for the save in flight, and undo the records of it if it failed. A collective."""
    io = trainer.strategy.checkpoint_io
    # On every rank, though the first alone writes: all of them have the callbacks' records.
    if isinstance(io, VerifiedCheckpointIO) and io.outcomes:
        has_last_save_failed(trainer)


def has_last_save_failed(trainer: Trainer) -> bool:
    """Return whether the trainer's last save failed on a full disk, once it has ended. A collective: the first rank
    broadcasts it."""
    io = trainer.strategy.checkpoint_io
    if not isinstance(io, VerifiedCheckpointIO):
        return False
    io.finish_save()
    failed = bool(trainer.strategy.broadcast(io.unsaved))
    outcomes, io.outcomes = io.outcomes, []
    for conclude in outcomes:
        conclude(not failed)
    return failed


def _settle_around(loop: object, name: str, trainer: Trainer) -> None:
    method = getattr(loop, name)

    def settle_and_call() -> object:
        # Before the hooks of the training's end, which may read the best checkpoint; one of them may save the last.
        settle_saves(trainer)
        result = method()
        settle_saves(trainer)
        return result

    setattr(loop, name, settle_and_call)


def _leaves_saving_to_lightning(callback: ModelCheckpoint) -> bool:
    """Return whether nothing reads a callback's file right after the save."""
    unchanged = all(getattr(type(callback), name) is getattr(ModelCheckpoint, name) for name in _OWN_METHODS)
    # A link to a checkpoint that then fails would lead nowhere.
    return unchanged and callback.save_last != "link"


class _SaveGuard:
    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._is_in_callback = self._in_background = self._has_started = False
        self._uncertain: tuple[ModelCheckpoint, Sequence[str]] | None = None  # whose records, and which, may be undone
        self._save: Callable[..., None] = trainer.save_checkpoint
        trainer.save_checkpoint = self._save_checkpoint  # type: ignore[method-assign]  # for this trainer alone

    def wrap_save(self, callback: ModelCheckpoint, name: str, *, in_background: bool) -> Callable[..., None]:
        """Return the method `name`, wrapped so that `callback` is as it was before if the disk is full."""
        save = getattr(callback, name)
        # After an error the process ends, and Lightning then prints that the checkpoint is saved.
        is_last_chance = name == "on_exception"

        def save_or_restore(*arguments: object) -> None:
            # Ranks may not agree on an exception, so they must not wait for each other where nothing is saved.
            may_save = not is_last_chance or callback._should_save_on_exception(self._trainer)
            if may_save and self._uncertain == (callback, _SAVE_METHODS[name]):
                # What the callback decides by must be true: its save before may have failed.
                settle_saves(self._trainer)
            before = _copy_records(callback, _SAVE_METHODS[name])
            self._is_in_callback, self._in_background = True, in_background and not is_last_chance
            try:
                save(*arguments)
            except _NotSavedError:
                _restore_records(callback, before, saved=False)
            finally:
                self._is_in_callback = self._in_background = False
            if self._has_started and (outcomes := self._get_outcomes()):
                outcomes.append(partial(_restore_records, callback, before))
                self._uncertain = (callback, _SAVE_METHODS[name])
            self._has_started = False

        return save_or_restore

    def defer_notification(self, notify: Callable[..., None]) -> Callable[..., None]:
        """Return a logger's method, deferred until the checkpoint exists."""

        def notify_once_saved(*arguments: object) -> None:
            io = self._trainer.strategy.checkpoint_io
            if isinstance(io, VerifiedCheckpointIO) and io.is_saving:
                # By the rank that writes, as soon as it has: ranks need not agree on it, as they do on records.
                io.notifications.append(partial(notify, *arguments))
            elif outcomes := self._get_outcomes():
                outcomes.append(lambda saved: notify(*arguments) if saved else None)
            else:
                notify(*arguments)

        return notify_once_saved

    def settle_finished(self) -> None:
        """Settle a save that has ended, without waiting for it; several ranks would have to agree, at each step."""
        io = self._trainer.strategy.checkpoint_io
        if isinstance(io, VerifiedCheckpointIO) and io.is_save_finished:
            if self._trainer.world_size == 1:
                settle_saves(self._trainer)
            else:
                io.finish_save()  # what concerns the first rank alone: warnings, errors

    def _save_checkpoint(self, *arguments: object, **options: object) -> None:
        io = self._trainer.strategy.checkpoint_io
        if not isinstance(io, VerifiedCheckpointIO):
            self._save(*arguments, **options)
            return
        # A checkpoint holds the records of all callbacks.
        settle_saves(self._trainer)
        # Never of other callers: they may read the file at once.
        io.in_background = self._in_background
        try:
            self._save(*arguments, **options)
        finally:
            io.in_background = False
        if self._in_background:
            self._has_started = True
            io.outcomes.append(_note_started)
        # Only inside a ModelCheckpoint: other callers of `save_checkpoint` check `has_last_save_failed` themselves.
        elif self._is_in_callback and has_last_save_failed(self._trainer):
            raise _NotSavedError

    def _get_outcomes(self) -> list[Callable[[bool], None]] | None:
        io = self._trainer.strategy.checkpoint_io
        return io.outcomes if isinstance(io, VerifiedCheckpointIO) else None


def _note_started(saved: bool) -> None:
    """Do nothing: that it is in the list marks, on every rank, that a save is in flight."""


def _copy_records(callback: ModelCheckpoint, names: Sequence[str]) -> dict[str, Any]:
    before = {name: getattr(callback, name) for name in names if hasattr(callback, name)}
    # Copied: the callback changes this dictionary in place.
    return {name: dict(value) if isinstance(value, dict) else value for name, value in before.items()}


def _restore_records(callback: ModelCheckpoint, before: dict[str, Any], saved: bool) -> None:
    for name, value in before.items() if not saved else ():
        setattr(callback, name, value)
