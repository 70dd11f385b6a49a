"""Callbacks that note what each rank saw, and that make a rank fail: named by `_target_` in the commands of tests."""

import ctypes
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mlscale.errors import Exit, MLScaleError


class Keys(pl.Callback):
    """Writes the sample keys of every batch into `<folder>/<train|val>-<rank>.jsonl`.

    A line is [epoch, optimizer step, keys]; samples of weight 0 are padding, and left out.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _: int) -> None:
        self._note("train", trainer, batch)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _: int, loader: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self._note("val", trainer, batch)

    def _note(self, kind: str, trainer: pl.Trainer, batch: Any) -> None:
        weights = batch.get("weight", [1] * len(batch["key"]))
        keys = [key for key, weight in zip(batch["key"], weights, strict=True) if weight > 0]
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"{kind}-{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([trainer.current_epoch, trainer.global_step, keys]) + "\n")


class Fail(pl.Callback):
    """At its third batch, one rank sleeps, is killed, raises an error with its remedy, or one without."""

    def __init__(self, how: str, rank: int = 1) -> None:
        self.how, self.rank = how, rank

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        if trainer.global_rank != self.rank or index != 2:
            return
        if self.how == "sleep":
            time.sleep(600)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "fork server" and trainer.current_epoch == 1 and not Path("killed").exists():
            Path("killed").touch()
            # The first rank writes the epoch's last one in the background.
            _wait_for_file(Path(trainer.default_root_dir, "checkpoints", "last.ckpt"))
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        if self.how == "fork server":
            return
        if self.how == "tell":
            raise MLScaleError("the disk is full", fix="make room", exit=Exit.ENVIRONMENT)
        raise KeyError("a bug")


class Started(pl.Callback):
    """Makes the file `path` when rank 0 has trained a step, and leaves the cores to others."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if trainer.is_global_zero:
            self.path.touch()
        time.sleep(0.05)


class Explode(pl.Callback):
    """From the start of `epoch` on, steps are far too large."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = 1e30


class Hang(pl.Callback):
    """At the 30th step one rank does nothing for `seconds`; `locked`, in code that does not let Python run either."""

    def __init__(self, rank: int = 0, locked: bool = False, seconds: int = 600) -> None:
        self.rank, self.locked, self.seconds = rank, locked, seconds

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == 30:
            self._hang()

    def _hang(self) -> None:
        if self.locked:
            ctypes.PyDLL(None).sleep(self.seconds)
        else:
            time.sleep(self.seconds)


def _wait_for_file(path: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _wait_for_checkpoint(trainer: pl.Trainer) -> None:
    """Wait for the periodic checkpoint of this step, where one is due: the first rank writes it in the background."""
    every = getattr(trainer.checkpoint_callback, "every_n_steps", None)
    if not every or not trainer.global_step or trainer.global_step % every:
        return
    _wait_for_file(Path(trainer.default_root_dir, "checkpoints", f"step={trainer.global_step}.ckpt"))


class KillOnce(pl.Callback):
    """Ends one rank before a step, once: `mark` is the file that remembers it, and when.

    Args:
        how: kill, by SIGKILL; stop, by SIGSTOP: it neither answers nor closes a connection, as behind a lost link;
            wait: nothing but the mark; or anything else for an error.
    """

    def __init__(self, step: int, mark: str, whom: int = 1, how: str = "kill") -> None:
        self.step, self.mark, self.whom, self.how = step, Path(mark), whom, how

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_step != self.step or trainer.global_rank != self.whom or self.mark.exists():
            return
        _wait_for_checkpoint(trainer)
        self.mark.write_text(str(os.getpid()))
        if self.how in ("kill", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if self.how == "kill" else signal.SIGSTOP)
        elif self.how != "wait":
            raise MLScaleError("the disk is full", fix="make room", exit=Exit.ENVIRONMENT)
