"""A callback that ends its own run: by SIGKILL at a named moment, or by a signal that asks it to stop. Once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

# Waits for a file that matches a pattern and is as large as it says; then kills a process (negative: a group).
_WATCH = """
import glob, os, signal, sys
pattern, size, whom = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def there():
    for path in glob.glob(pattern, include_hidden=True):
        try:
            if os.path.getsize(path) >= size:
                return True
        except OSError:
            pass
    return False
while not there():
    os.kill(abs(whom), 0)
os.kill(whom, signal.SIGKILL)
"""
_PART = 1 << 20  # bytes of a checkpoint that is being written
_MANY = 1 << 30  # bytes that the seal takes a second to read


def wait_for_save(trainer: Any) -> None:
    """Wait until the save in the background, if there is one, is on the disk, and what was committed before in the
    object store, if there is one; nothing else of the run changes."""
    io = trainer.strategy.checkpoint_io
    writer, uploader = getattr(io, "_writer", None), getattr(io, "uploader", None)
    while writer is not None and writer.is_busy and not writer.is_finished:
        time.sleep(0.005)
    while uploader is not None and (uploader._list_waiting() or not uploader._has_compared):
        time.sleep(0.005)


class End(pl.Callback):
    """Ends the run at `moment`, which a file notes: an attempt after that is left alone.

    The command must have been started in a session of its own, so its process is the leader of the group.

    Args:
        moment: start-up, step (its gradients are there, the optimizer has not used them), stop (after a step, by
            `signum`), validation, writing (a checkpoint is written in part), between (an epoch's best checkpoint is
            committed, its last one is not), exit (all is trained), unsealed (the result is written, its seal is not).
        folder: for notes: `ended`, and a file for each rank, named by its process.
        whom: command, group, as `timeout` does: to the command as well, or rank: the first one alone.
        step: optimizer steps that are done by then, at least.
        signum: what is sent; SIGKILL.
    """

    def __init__(self, moment: str, folder: str, whom: str = "group", step: int = 6, signum: int = 9) -> None:
        self.moment, self.folder, self.whom = moment, Path(folder), whom
        self.step, self.signum = step, signum
        self._is_later = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.folder.mkdir(exist_ok=True)
        self._is_later = (self.folder / "ended").exists()
        (self.folder / f"rank-{os.getpid()}").touch()
        run = Path(trainer.default_root_dir)
        if self.moment == "start-up":
            self._end(trainer)
        if self.moment == "unsealed":
            with (run / "logs/large").open("w") as file:
                file.truncate(_MANY)
            self._watch(trainer, str(run / "results/train.json"), 1)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self._at("step", trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._at("stop", trainer)
        if self.moment == "writing" and trainer.global_step == self.step:
            self._watch(trainer, f"{trainer.default_root_dir}/checkpoints/.aside-*", _PART)

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking and batch_idx == 1:
            self._at("validation", trainer)

    def on_epoch_boundary(self, trainer: Any, pl_module: Any) -> None:
        self._at("between", trainer)  # Lightning calls this before callbacks that save

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._at("exit", trainer)

    def _at(self, moment: str, trainer: Any) -> None:
        if moment == self.moment and trainer.global_step >= self.step and not self._is_later:
            # A moment says what is saved by then; `writing` is the one within a save.
            wait_for_save(trainer)
            self._end(trainer)

    def _end(self, trainer: Any) -> None:
        if self._first(trainer):
            if self.whom == "group" and self.signum != signal.SIGKILL:
                os.kill(os.getpgid(0), self.signum)
            os.kill(self._pid(), self.signum)
            if self.signum == signal.SIGKILL:
                time.sleep(600)  # the end of the launcher reaches its ranks a moment later: they train no further step

    def _watch(self, trainer: Any, pattern: str, size: int) -> None:
        if self._first(trainer):
            words = [sys.executable, "-c", _WATCH, pattern, str(size), str(self._pid())]
            subprocess.Popen(words, start_new_session=True)

    def _pid(self) -> int:
        return {"rank": os.getpid(), "command": os.getpgid(0), "group": -os.getpgid(0)}[self.whom]

    def _first(self, trainer: Any) -> bool:
        note = self.folder / "ended"
        if not trainer.is_global_zero or note.exists():
            return False
        note.touch()
        return True
