"""Run a training command in its own process group, until it ends or is killed by SIGKILL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlscale.errors import Exit, MLScaleError
from mlscale.verify_resume import stop_request as halts
from mlscale.verify_resume.kill_points import KillPoint

_POLL_SECONDS = 0.02
_LAST_LINES = 12


@dataclass(frozen=True)
class CommandExit:
    """The end of a command.

    Attributes:
        code: its exit code; None where it was killed as planned.
        output: the error that it printed, or its last lines.
        seconds: its duration.
    """

    code: int | None
    output: str
    seconds: float


def run_training_command(run: Path, root: Path, kill: KillPoint | None = None) -> CommandExit:
    """Train the run in the folder `run` from its current state, by a command as a user types it; wait for its end.

    Args:
        run: a run folder.
        root: the folder of runs that it is in.
        kill: the point at which to kill it; the run's config must have a `Trace` that writes into `<run>/trace`.
    """
    folder, log = run / "trace", root / f"{run.name}.log"
    halts.write_stop_order(folder, *((kill.phase, kill.step) if kill else ()))
    start = time.monotonic()
    # All attempts of a run write to one log: only what this one adds is read.
    offset = log.stat().st_size if log.exists() else 0
    # Like `mlscale runs resume`: with the run's own config, not composed again. A run without checkpoints restarts.
    words = ["train", f"resume={run}", f"runs_dir={root}", "trust=true"]
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlscale", *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            # One signal to the group reaches the ranks and their fork server, too.
            start_new_session=True,
        )
        with _kill_group_at_end(process):
            while process.poll() is None and not halts.get_stopped_path(folder).exists():
                time.sleep(_POLL_SECONDS)
            # Read before `_kill_group_at_end` kills the group: None then means that the run was still there
            # to be killed.
            code = process.poll()
    with log.open("rb") as file:
        file.seek(offset)
        output = file.read().decode(errors="replace")
    return CommandExit(code, _extract_error_text(output), time.monotonic() - start)


@contextlib.contextmanager
def _kill_group_at_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill all processes of the group at the end of the block: ranks and their fork server, too."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Termination(BaseException):
    """SIGTERM has arrived. Not an Exception: code that handles errors of an export or a model must let it through."""


@contextlib.contextmanager
def raise_on_terminate() -> Iterator[None]:
    """Make SIGTERM end the block by an exception, so that it ends its processes and removes its folders.

    Raises:
        MLScaleError: the signal has arrived (exit code 143).
    """

    def raise_stop(*_: object) -> None:
        raise _Termination("stopped by SIGTERM")

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set signal handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, raise_stop)
    try:
        yield
    except _Termination as stop:
        raise MLScaleError(str(stop), exit=Exit.TERMINATED, fix="start the command again") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _extract_error_text(text: str) -> str:
    lines = text.strip().splitlines()
    errors = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    if errors:
        return "\n".join([lines[errors[-1]].removeprefix("error: "), *lines[errors[-1] + 1 :]])
    return "\n".join(lines[-_LAST_LINES:])
