"""The data of a LightningModule that has its loaders itself, as a data module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden


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
        with self._attach_trainer():
            self._task.prepare_data()

    def setup(self, stage: str) -> None:
        """Let the task set itself up."""
        with self._attach_trainer():
            self._task.setup(stage)

    def train_dataloader(self) -> Any:
        """Return the task's training loader."""
        with self._attach_trainer():
            return self._task.train_dataloader()

    def val_dataloader(self) -> Any:
        """Return the task's validation loader."""
        with self._attach_trainer():
            return self._task.val_dataloader()

    @contextmanager
    def _attach_trainer(self) -> Iterator[None]:
        """Give the task a Trainer of one process in this block: its hooks may ask it for the strategy, say."""
        self._task.trainer = pl.Trainer(
            accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        try:
            yield
        finally:
            self._task.trainer = None


def has_own_loaders(task: pl.LightningModule) -> bool:
    """Return whether a task has a validation loader of its own."""
    return is_overridden("val_dataloader", task)
