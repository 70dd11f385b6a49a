"""The checkpoints that a run has saved, for the messages of runs that diverge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


def list_saved_checkpoints(trainer: Trainer) -> list[str]:
    """Return the names of the checkpoints that exist; callbacks may save to several folders."""
    folders = {
        str(folder) for callback in trainer.checkpoint_callbacks if (folder := getattr(callback, "dirpath", None))
    }
    return sorted({path.name for folder in folders for path in Path(folder).glob("*.ckpt")})


def describe_kept_checkpoints(names: Sequence[str]) -> str:
    """Return what a run that diverged can be resumed from, in words."""
    if not names:
        return "no checkpoint had been saved before"
    return f"the last good checkpoint is kept: {', '.join(names)}"
