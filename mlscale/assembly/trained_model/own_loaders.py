"""The data of a LightningModule that has its loaders itself, as a data module."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from mlscale.assembly.hook_layers import attach_trainer


class OwnLoaders(pl.LightningDataModule):
    """A data module that gives the loaders of a task.

    Args:
        task: a LightningModule with a `val_dataloader`.
    """

    def __init__(self, task: pl.LightningModule) -> None:
        super().__init__()
        self._task = task

    def prepare_data(self) -> None:
        """Let the task prepare its data."""
        with attach_trainer(self._task):
            self._task.prepare_data()

    def setup(self, stage: str) -> None:
        """Let the task set itself up."""
        with attach_trainer(self._task):
            self._task.setup(stage)

    def train_dataloader(self) -> Any:
        """Return the task's training loader."""
        with attach_trainer(self._task):
            return self._task.train_dataloader()

    def val_dataloader(self) -> Any:
        """Return the task's validation loader."""
        with attach_trainer(self._task):
            return self._task.val_dataloader()


def has_own_loaders(task: pl.LightningModule) -> bool:
    """Return whether a task has a validation loader of its own."""
    return is_overridden("val_dataloader", task)
