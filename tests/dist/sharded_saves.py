"""What each of two ranks does in the tests of sharded checkpoints; the fork server imports it by name."""

import resource
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mlscale.errors import MLScaleError
from mlscale.train.callbacks.checkpoints import Checkpoints
from mlscale.train.checkpoint.exact_resume import ExactResume
from tests.dist.sharded import losses, of_rank, run, task
from tests.unit.fitting import At, Loader, batches, fit

FILE_LIMIT = 1000  # bytes


def save_both(argument: str) -> bool:
    """Save a state as a folder and as a file."""
    folder = Path(argument)

    def keep(trainer: pl.Trainer, module: Any, index: int) -> None:
        if index == 2:
            strategy: Any = trainer.strategy
            trainer.save_checkpoint(folder / "sharded.ckpt")
            strategy.sharded_checkpoint = False
            trainer.save_checkpoint(folder / "whole.ckpt")

    fit(run("fsdp", {"callbacks": [At(keep)]}, sharded_checkpoint=True), task(), of_rank(batches(12)))
    return True


def train(argument: str) -> list[float]:
    """Train two epochs with a sharded checkpoint every second step, from one if it is named; the losses."""
    folder, resumed = [*argument.split(" "), ""][:2]
    keeper = Checkpoints(folder, save_top_k=0, every_n_steps=2, keep=-1)
    seen, callbacks = losses([ExactResume(0), keeper])
    made = run("fsdp", {"callbacks": callbacks, "max_epochs": 2, "enable_checkpointing": True}, sharded_checkpoint=True)
    made.fit(task(), Loader(of_rank(batches(10))), Loader(batches(1)), ckpt_path=resumed or None, weights_only=True)
    return seen


def fill_disk(argument: str) -> tuple[int, int, list[str]]:
    """Save while files can't grow on the second rank, then when they can: how many saves have failed, and the rank's
    list of periodic checkpoints."""
    keeper = Checkpoints(argument, save_top_k=0, save_last=False, every_n_steps=2, keep=-1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(trainer: pl.Trainer, module: Any, index: int) -> None:
        is_full = trainer.global_step == 2 and trainer.global_rank == 1
        trainer.strategy.checkpoint_io.finish_save()  # type: ignore[attr-defined]
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT if is_full else before[0], before[1]))

    made = run("fsdp", {"callbacks": [At(limit), keeper], "enable_checkpointing": True}, sharded_checkpoint=True)
    made.fit(task(), Loader(of_rank(batches(10))), Loader(batches(1)))
    io: Any = made.strategy.checkpoint_io
    return len(io.failed), io._saved, keeper._periodic


def write_nowhere(argument: str) -> str:
    """Save to a folder that is a file; the error."""

    def keep(trainer: pl.Trainer, module: Any, index: int) -> None:
        trainer.save_checkpoint(Path(argument) / "last.ckpt")

    try:
        fit(run("fsdp", {"callbacks": [At(keep)]}, sharded_checkpoint=True), task(), of_rank(batches(4)))
    except MLScaleError as error:
        return error.what
    return ""
