"""Stop a run at a kill point: it reports that it has stopped, and waits to be killed. For `mlscale verify-resume`."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.host import processes as process
from mlscale.train.checkpoint import lightning_io
from mlscale.verify_resume.stop_request import ORDER, get_stopped_path

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

_POLL_SECONDS = 0.5


class KillPointHalt:
    """A stop at the point in `<folder>/order.json`: it creates `<folder>/there`, and waits to be killed.

    So a process is killed from outside at an exact step, whatever the speed of the machine. If the process that wrote
    the order ends, this one ends, too: no other process would kill it, or use its results. Without an order it does
    nothing.

    Args:
        folder: of the trace.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._phase: str | None = None
        self._step = 0
        if (folder / ORDER).is_file():
            order = json.loads((folder / ORDER).read_text())
            self._phase, self._step = order["place"], order["step"]
            _end_with_process(order["pid"], order["pid_start"])

    def stop_at_phase(self, phase: str, trainer: Trainer) -> None:
        """Stop if this is the ordered place: step (before a forward pass), validation (after its first batch), save, or
        between (the second save of a boundary)."""
        if phase != self._phase or trainer.global_step < self._step:
            return
        saves = phase in ("save", "between")
        if saves and isinstance(trainer.strategy.checkpoint_io, lightning_io.VerifiedCheckpointIO):
            # The one before may still be written in the background, and is not the one to interrupt.
            trainer.strategy.checkpoint_io.finish_save()
            _interrupt_next_checkpoint(self._wait_for_kill)
        # Checkpoints of Lightning's own I/O are written by rank 0 alone; at other places all ranks stop.
        elif not saves or trainer.is_global_zero:
            self._wait_for_kill()

    def _wait_for_kill(self) -> None:
        get_stopped_path(self._folder).touch()
        while True:
            time.sleep(_POLL_SECONDS)


def _end_with_process(pid: int, started: int | None) -> None:
    """End this process as soon as process `pid` has ended, which may be killed without a chance to end this one."""

    def watch_process() -> None:
        while process.is_alive(pid, started):
            time.sleep(_POLL_SECONDS)
        # An exception in this thread would not reach the main one.
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch_process, name="mlscale-verify-resume", daemon=True).start()


def _interrupt_next_checkpoint(then: Callable[[], None]) -> None:
    """Make the next checkpoint stop after its first block, and call `then`."""

    write = AtomicCheckpointWriter.write

    def write_and_stop(writer: AtomicCheckpointWriter, data: bytes | memoryview) -> int:
        write(writer, data)
        then()
        raise AssertionError("unreachable")

    # Of the class itself, wherever it is used; never restored: the process is killed before it writes another.
    AtomicCheckpointWriter.write = write_and_stop  # type: ignore[assignment,method-assign]
