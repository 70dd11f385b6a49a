"""A callback that kills the process once, before a step; in a folder of its own, so that runs import nothing else."""

import os
import signal
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class KillAtStep(Callback):
    """Kills each rank before a step, the first time that the run comes there.

    Args:
        step: optimizer steps that are done by then.
        folder: where each rank notes that it was killed.
    """

    def __init__(self, step: int, folder: str) -> None:
        self.step = step
        self.folder = folder

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        note = Path(self.folder, f"killed-{trainer.global_rank}")
        if trainer.global_step == self.step and not note.exists():
            note.touch()
            trainer.strategy.barrier()  # the others have noted it, too
            os.kill(os.getpid(), signal.SIGKILL)
