"""Layers that a user's LightningModule makes in its hooks, `configure_model` and `setup`, after it was built."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden


def configure_own_model(task: pl.LightningModule) -> None:
    """Make the layers of a `configure_model` of the user's, which can be called several times."""
    if is_overridden("configure_model", task):
        task.configure_model()


def make_hook_layers(
    task: pl.LightningModule, weights: Collection[str], data: pl.LightningDataModule | None = None
) -> None:
    """Make the layers of a task that its hooks make, so that weights can be loaded.

    Args:
        task: without weights.
        weights: names of what will be loaded. `setup` may need data and is only called where they lack a place.
        data: the data module, set up; None where there is none.
    """
    configure_own_model(task)
    if has_own_setup(task) and not set(weights) <= set(task.state_dict()):
        with attach_trainer(task, data):
            task.setup("fit")
        configure_own_model(task)


def has_own_setup(task: pl.LightningModule) -> bool:
    """Return whether a user's task has a `setup` of its own."""
    return is_overridden("setup", task) and not type(task).setup.__module__.startswith("mlscale.")


@contextmanager
def attach_trainer(task: pl.LightningModule, data: pl.LightningDataModule | None = None) -> Iterator[None]:
    """Give a task a Trainer of one process in this block: its hooks may ask it for the strategy or the data."""
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    if data is not None:
        trainer.datamodule = data  # type: ignore[attr-defined]  # as Lightning sets it in a fit
    task.trainer = trainer
    try:
        yield
    finally:
        task.trainer = None


class WeightsAfterSetup(pl.Callback):
    """Loads weights once Lightning has set a task up, which may make its layers then.

    Args:
        load: loads them into the task.
    """

    def __init__(self, load: Callable[[pl.LightningModule], object]) -> None:
        self._load = load

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._load(pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._load(pl_module)
