"""The rollback of Lightning's bookkeeping where a checkpoint could not be saved because the disk is full.

A `ModelCheckpoint` notes the new best before it saves it, removes the old one after, and notifies the loggers. When the
save failed (see `lightning_io.py`) none of this must happen: the old one is still the best that exists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytorch_lightning.callbacks import ModelCheckpoint

from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.lightning.trainer_parts import get_callbacks

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

# Methods of ModelCheckpoint that save, and below the attributes that they change, all private.
_SAVE_METHODS = ("_save_topk_checkpoint", "_save_last_checkpoint", "on_exception")
_SAVED_ATTRIBUTES = (
    "current_score",
    "best_k_models",
    "kth_best_model_path",
    "kth_value",
    "best_model_path",
    "best_model_score",
    "last_model_path",
    "_last_checkpoint_saved",
    "_last_global_step_saved",
)


class _NotSavedError(Exception):
    """The error for a full disk: the code that saves must not continue as if it had saved."""


def guard_checkpoint_callbacks(trainer: Trainer) -> None:
    """Let a trainer's checkpoint callbacks undo their records of saves that failed; call before fit."""
    guard = _SaveGuard(trainer)
    for callback in get_callbacks(trainer):
        if isinstance(callback, ModelCheckpoint):
            for name in _SAVE_METHODS:
                setattr(callback, name, guard.wrap_save(callback, getattr(callback, name)))


def has_last_save_failed(trainer: Trainer) -> bool:
    """Return whether the trainer's last save failed on a full disk. A collective: the first rank broadcasts it."""
    io = trainer.strategy.checkpoint_io
    return isinstance(io, VerifiedCheckpointIO) and bool(trainer.strategy.broadcast(io.unsaved))


class _SaveGuard:
    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._is_in_callback = False
        self._save = trainer.save_checkpoint
        trainer.save_checkpoint = self._save_checkpoint  # type: ignore[method-assign]  # for this trainer alone

    def wrap_save(self, callback: ModelCheckpoint, save: Callable[..., None]) -> Callable[..., None]:
        """Return `save`, wrapped so that `callback` is as it was before if the disk is full."""

        def save_or_restore(*arguments: object) -> None:
            before = {name: getattr(callback, name) for name in _SAVED_ATTRIBUTES if hasattr(callback, name)}
            # Copied: the callback changes this dictionary in place.
            before["best_k_models"] = dict(callback.best_k_models)
            self._is_in_callback = True
            try:
                save(*arguments)
            except _NotSavedError:
                for name, value in before.items():
                    setattr(callback, name, value)
            finally:
                self._is_in_callback = False

        return save_or_restore

    def _save_checkpoint(self, *arguments: Any, **options: Any) -> None:
        self._save(*arguments, **options)
        # Only inside a ModelCheckpoint: other callers of `save_checkpoint` check `has_last_save_failed` themselves.
        if self._is_in_callback and has_last_save_failed(self._trainer):
            raise _NotSavedError
