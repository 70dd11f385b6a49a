"""Callbacks of runs on the test cluster: a pace that leaves time to disturb a run, and a process that is killed."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from tests.resume.killer import wait_for_save


class Pace(pl.Callback):
    """Sleeps in each step while a file exists, and notes each start with its step in another one."""

    def __init__(self, folder: str, seconds: float = 1.0) -> None:
        self.folder, self.seconds = Path(folder), seconds

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if (self.folder / "slow").exists():
            time.sleep(self.seconds)
        if trainer.is_global_zero and not (self.folder / "stepping").exists():
            (self.folder / "stepping").write_text(str(trainer.global_step))


class Crash(pl.Callback):
    """Kills its process at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step >= self.step:
            # It has crashed after its last checkpoint, and not within the milliseconds in which that is written.
            wait_for_save(trainer)
            os.kill(os.getpid(), signal.SIGKILL)
