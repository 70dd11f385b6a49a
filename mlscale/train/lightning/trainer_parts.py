"""Read the parts of a trainer that Lightning's connectors set and its class does not declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningDataModule, Trainer


def get_callbacks(trainer: Trainer) -> list[Callback]:
    """Return the trainer's own list of callbacks: what is added to it takes part in the run."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    return callbacks


def get_data_module(trainer: Trainer) -> LightningDataModule | None:
    """Return the data module of the fit or validation in progress; None where loaders were passed without one."""
    data: LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
    return data


def get_log_interval(trainer: Trainer) -> int:
    """Return the number of optimizer steps between two rows of the trackers."""
    steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
    return steps
