"""What a run is doing at this moment, reported by a callback, and its end at a moment that is drawn: for benches that
kill runs.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mlscale.train.checkpoint.exact_resume import ExactResume
from scripts.kill_processes import kill_attempt

PHASES = ("start-up", "step", "validation", "checkpoint", "exit")
_BYTES = 32
_ORDER, _STRUCK = "order.json", "struck"
# Audit events of calls that make, replace or remove a file; fsync has none, but a folder is opened for it.
_OPERATIONS = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"})


@dataclass(frozen=True)
class Order:
    """A kill that rank 0 does itself, between two operations on files that no clock would hit.

    Attributes:
        phase: validation, checkpoint or exit.
        step: optimizer steps that are done by then, at least.
        operation: the number of the operation on a file of the run, since the save or the exit began, before which it
            is done; of a batch in a validation. A save ends where the next step begins, so all of its checkpoints are
            in it.
        whole: kill all processes of the attempt, not this one alone.
    """

    phase: str
    step: int
    operation: int
    whole: bool


def begin_attempt(folder: Path, order: Order | None = None) -> None:
    """Report 'start-up' for an attempt that is about to start; it reports the rest itself."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "phase").write_bytes(f"{PHASES[0]} 0".encode().ljust(_BYTES))
    (folder / _STRUCK).unlink(missing_ok=True)
    (folder / _ORDER).unlink(missing_ok=True)
    if order is not None:
        (folder / _ORDER).write_text(json.dumps(asdict(order)))


def read_moment(folder: Path) -> tuple[str, int]:
    """Return the phase and the optimizer step that an attempt is in, or was in when it was killed."""
    phase, _, step = (folder / "phase").read_bytes().decode().strip().rpartition(" ")
    return phase, int(step)


def has_struck(folder: Path) -> bool:
    """Return True if the order of this attempt has been carried out."""
    return (folder / _STRUCK).exists()


def read_first_steps(folder: Path) -> list[dict[str, Any]]:
    """Return an entry for each attempt that came as far as a step: its `time`, `resumed_from` (a step, or None) and
    `replayed`.
    """
    path = folder / "first_steps.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Phases(pl.Callback):
    """Keeps the phase of rank 0 in a file that is mapped into memory: to report it takes no time, and a process that
    is killed has reported it. Carries out the attempt's order.

    Args:
        folder: where `begin_attempt` was called.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._map: mmap.mmap | None = None
        self._has_stepped = False
        self._order: Order | None = None
        self._trainer: Any = None
        self._count: int | None = None  # operations since the phase of the order began

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        self._trainer = trainer
        with (self.folder / "phase").open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _BYTES)
        if (self.folder / _ORDER).exists():
            self._order = Order(**json.loads((self.folder / _ORDER).read_text()))
            sys.addaudithook(self._count_operation)
        io = trainer.strategy.checkpoint_io
        io.save_checkpoint, io.save_sharded = map(self._report_save, (io.save_checkpoint, io.save_sharded))

    def _report_save(self, save: Callable[..., None]) -> Callable[..., None]:
        def report_and_save(*arguments: Any, **options: Any) -> None:
            before = self._report("checkpoint")
            self._begin_counting("checkpoint")
            save(*arguments, **options)
            self._report(before)

        return report_and_save

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._count is not None:
            self._strike()  # there were fewer operations than the order counts: after the last one
        self._report("step")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._has_stepped or not trainer.is_global_zero:
            return
        self._has_stepped = True
        resume = next(callback for callback in trainer.callbacks if isinstance(callback, ExactResume))
        entry = {"time": time.time(), "resumed_from": resume.resumed_step, "replayed": resume.replayed}
        with (self.folder / "first_steps.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._report("validation")
            self._begin_counting("validation")

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        if self._order is not None and self._order.phase == "validation":
            self._count_one()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._report("step")

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._report("exit")
        self._begin_counting("exit")

    def _report(self, phase: str) -> str:
        """Write the phase; returns the one before."""
        if self._map is None:
            return ""
        before = self._map[:].decode().strip().rpartition(" ")[0]
        self._map[:] = f"{phase} {self._trainer.global_step}".encode().ljust(_BYTES)
        return before

    def _begin_counting(self, phase: str) -> None:
        order = self._order
        if order is not None and order.phase == phase and self._trainer.global_step >= order.step:
            self._count = self._count or 0

    def _count_operation(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count an operation on a file; called by the interpreter before each of them, in any thread."""
        if self._count is None or self._order is None or event not in _OPERATIONS:
            return
        if self._trainer.default_root_dir not in str(arguments[0]):
            return
        if self._order.phase != "validation":
            self._count_one()

    def _count_one(self) -> None:
        if self._count is None or self._order is None:
            return
        self._count += 1
        if self._count >= self._order.operation:
            self._strike()

    def _strike(self) -> None:
        """Kill as the order says. No return from here, so the order is removed first."""
        order, self._order, self._count = self._order, None, None
        assert order is not None
        (self.folder / _STRUCK).touch()
        kill_attempt(os.environ, alone=not order.whole)
        time.sleep(60)  # until the signal has arrived
