"""A place of a run to be killed at: the run stops there, says so, and waits. For `mlscale verify-resume`."""

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
    """Stops where `<folder>/order.json` says, makes `<folder>/there`, and waits to be killed.

    So a process is killed from outside, at a place that is known to the step, whatever the speed of the machine. When
    who gave the order is gone, the process ends: nobody would kill it, or want what it computes. Without an order it
    does nothing.

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
        """The run is at a place: step (before a forward pass), validation (after its first batch), save, or between: at
        the second save of a boundary."""
        if place != self._place or trainer.global_step < self._step:
            return
        saves = place in ("save", "between")
        if saves and isinstance(trainer.strategy.checkpoint_io, checkpoint_io.VerifiedCheckpointIO):
            _write_half(self._wait)
        elif not saves or trainer.is_global_zero:
            self._wait()

    def _wait(self) -> None:
        there(self._folder).touch()
        while True:
            time.sleep(_LOOK_SECONDS)


def _end_with(pid: int, started: int | None) -> None:
    """End this process when that one is gone, killed without a chance to end it."""

    def watch() -> None:
        while process.alive(pid, started):
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="mlscale-verify-resume", daemon=True).start()


def _write_half(then: Callable[[], None]) -> None:
    """Let the checkpoint that is about to be written stop after its first block."""

    class Half(checkpoints.Writer):
        def write(self, data: bytes | memoryview) -> int:
            super().write(data)
            then()
            raise AssertionError("unreachable")

    vars(checkpoint_io)["Writer"] = Half  # in a process that does not live to write another
