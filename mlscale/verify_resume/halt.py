"""Stop a run at a kill point: it reports that it has stopped, and waits to be killed. For `mlscale verify-resume`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.host import processes as process
from mlscale.runs.identity import get_current_time
from mlscale.runs.job_record import read_job_record
from mlscale.train.checkpoint import lightning_io
from mlscale.verify_resume.stop_request import ORDER, get_renewal_path, get_stopped_path

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

_POLL_SECONDS = 0.5
_MAX_SILENCE_SECONDS = 300.0  # of the owner of the order, on another machine


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
            if order["host"] == socket.gethostname():
                _end_with_process(folder.parent, order["pid"], order["pid_start"])
            else:
                _end_with_renewals(folder)

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


def _end_with_process(run: Path, pid: int, started: int | None) -> None:
    """End this process as soon as process `pid` has ended, which may be killed without a chance to end this one."""

    def watch_process() -> None:
        while process.is_alive(pid, started):
            time.sleep(_POLL_SECONDS)

    _end_after(watch_process, run)


def _end_with_renewals(folder: Path) -> None:
    """End this process once the owner of the order, on another machine, has not renewed it for minutes, and its job."""

    def watch_renewals() -> None:
        content, since = "", time.monotonic()
        # By this machine's clock: those of two machines differ.
        while time.monotonic() - since < _MAX_SILENCE_SECONDS:
            with contextlib.suppress(OSError):
                if (now := get_renewal_path(folder).read_text()) != content:
                    content, since = now, time.monotonic()
            time.sleep(_POLL_SECONDS)

    _end_after(watch_renewals, folder.parent)


def _end_after(watch: Callable[[], None], run: Path) -> None:
    """Kill this process as soon as `watch`, in a thread of its own, returns; a job of the run is not requeued then."""

    def watch_and_end() -> None:
        watch()
        # Its scheduler would start the job again, which no command waits for. The folder may have been removed.
        with contextlib.suppress(MLScaleError):
            if (record := read_job_record(run)) is not None:
                replace(record, cancelled=get_current_time()).write(run)
        # An exception in this thread would not reach the main one.
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch_and_end, name="mlscale-verify-resume", daemon=True).start()


def _interrupt_next_checkpoint(then: Callable[[], None]) -> None:
    """Make the next checkpoint stop after its first block, and call `then`."""

    write = AtomicCheckpointWriter.write

    def write_and_stop(writer: AtomicCheckpointWriter, data: bytes | memoryview) -> int:
        write(writer, data)
        then()
        raise AssertionError("unreachable")

    # Of the class itself, wherever it is used; never restored: the process is killed before it writes another.
    AtomicCheckpointWriter.write = write_and_stop  # type: ignore[assignment,method-assign]
