"""What a run is doing at this moment, told by a callback: for those that kill it from another process."""

from __future__ import annotations

import json
import mmap
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mlscale.train.checkpoint.exact_resume import ExactResume

PHASES = ("start-up", "step", "validation", "checkpoint", "exit")
_BYTES = 16


def begin(folder: Path) -> None:
    """Say 'start-up' for a run that is about to be started; it says the rest itself."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "phase").write_bytes(PHASES[0].encode().ljust(_BYTES))


def current(folder: Path) -> str:
    """The phase that the run is in, or was in when it was killed."""
    return (folder / "phase").read_bytes().decode().strip()


def first_steps(folder: Path) -> list[dict[str, Any]]:
    """One entry per attempt that came as far as a step: its `time`, `went_on_from` (a step, or None), `replayed`."""
    path = folder / "first_steps.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Phases(pl.Callback):
    """Keeps the phase of rank 0 in a file that is mapped into memory, so that to say it takes no time, and a process
    that is killed has said it.

    Args:
        folder: where `begin` has been.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._map: mmap.mmap | None = None
        self._stepped = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        with (self.folder / "phase").open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _BYTES)
        io = trainer.strategy.checkpoint_io
        save = io.save_checkpoint

        def save_checkpoint(*arguments: Any, **options: Any) -> None:
            before = self._say("checkpoint")
            save(*arguments, **options)
            self._say(before)

        io.save_checkpoint = save_checkpoint

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._say("step")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._stepped or not trainer.is_global_zero:
            return
        self._stepped = True
        resume = next(callback for callback in trainer.callbacks if isinstance(callback, ExactResume))
        entry = {"time": time.time(), "went_on_from": resume.resumed_step, "replayed": resume.replayed}
        with (self.folder / "first_steps.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._say("validation")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._say("step")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._say("exit")

    def _say(self, phase: str) -> str:
        """Write the phase; returns the one before."""
        if self._map is None:
            return ""
        before = self._map[:].decode().strip()
        self._map[:] = phase.encode().ljust(_BYTES)
        return before
