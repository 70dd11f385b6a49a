"""Callbacks of earlier versions: the configs of their runs name them, and these runs resume and are evaluated."""

from __future__ import annotations

import sys

from pytorch_lightning import Callback, LightningModule, Trainer


class Former(Callback):
    """A callback that does nothing, whatever its settings: none of these changed what a run computes."""

    def __init__(self, **settings: object) -> None:
        self.settings = settings

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            print(f"callbacks {type(self).__name__}, of an earlier version, does nothing", file=sys.stderr, flush=True)


class LossSpike(Former):
    """A callback that warned of a loss far above those before it."""


class DeviceStats(Former):
    """A callback that sampled processor, memory and GPU."""
