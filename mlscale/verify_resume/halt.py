"""Stop a run at a kill point: it reports that it has stopped, and waits to be killed. For `mlscale verify-resume`."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlscale.runs import checkpoint_files as checkpoints
from mlscale.runs import processes as process
from mlscale.train.checkpoint import io as checkpoint_io
from mlscale.verify_resume.stop_request import ORDER, there

_LOOK_SECONDS = 0.5


class Halt:
    """A stop at the point in `<folder>/order.json`: it creates `<folder>/there`, and waits to be killed.

    So a process is killed from outside at an exact step, whatever the speed of the machine. If the process that wrote
    the order ends, this one ends, too: no other process would kill it, or use its results. Without an order it does
    nothing.

    Args:
        folder: of the trace.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place: str | None = None
        self._step = 0
        if (folder / ORDER).is_file():
            order = json.loads((folder / ORDER).read_text())
            self._place, self._step = order["place"], order["step"]
            _end_with(order["pid"], order["pid_start"])

    def at(self, place: str, trainer: Any) -> None:
        """Stop if this is the ordered place: step (before a forward pass), validation (after its first batch), save, or
        between (the second save of a boundary)."""
        if place != self._place or trainer.global_step < self._step:
            return
        saves = place in ("save", "between")
        if saves and isinstance(trainer.strategy.checkpoint_io, checkpoint_io.VerifiedCheckpointIO):
            _write_half(self._wait)
        # Checkpoints of Lightning's own I/O are written by rank 0 alone; at other places all ranks stop.
        elif not saves or trainer.is_global_zero:
            self._wait()

    def _wait(self) -> None:
        there(self._folder).touch()
        while True:
            time.sleep(_LOOK_SECONDS)


def _end_with(pid: int, started: int | None) -> None:
    """End this process as soon as process `pid` has ended, which may be killed without a chance to end this one."""

    def watch() -> None:
        while process.alive(pid, started):
            time.sleep(_LOOK_SECONDS)
        # An exception in this thread would not reach the main one.
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="mlscale-verify-resume", daemon=True).start()


def _write_half(then: Callable[[], None]) -> None:
    """Make the next checkpoint stop after its first block, and call `then`."""

    class Half(checkpoints.Writer):
        def write(self, data: bytes | memoryview) -> int:
            super().write(data)
            then()
            raise AssertionError("unreachable")

    vars(checkpoint_io)["Writer"] = Half  # never restored: the process is killed before it writes another
