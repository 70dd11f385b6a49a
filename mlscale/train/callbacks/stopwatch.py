"""Measurements of a whole fit: time in training, optimizer steps, peak memory."""

import time

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mlscale.train.process_memory import measure_peak_bytes


class Stopwatch(Callback):
    """A callback that measures a fit's duration, steps and memory. A step costs nothing.

    Attributes:
        seconds: in training, without set-up and validation.
        steps: optimizer steps of this fit, without those before a resume.
        peak_memory_bytes: the most that a process of the run has used, of all ranks.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0
        self.peak_memory_bytes = 0
        self._since = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds = 0.0  # the sanity validation before a fit does not count
        self._since, self._first_step = time.perf_counter(), trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds += time.perf_counter() - self._since

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds += time.perf_counter() - self._since
        self.steps = trainer.global_step - self._first_step
        device = trainer.strategy.root_device
        # int64: float32 is exact up to 2^24 only. A tensor on the device, since NCCL reduces no others.
        own = torch.tensor(measure_peak_bytes(device), dtype=torch.int64, device=device)
        largest = trainer.strategy.reduce(own, reduce_op="max")
        self.peak_memory_bytes = int(largest)
