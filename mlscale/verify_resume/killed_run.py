"""Train by a command on this machine, until it ends or all of its processes are killed by SIGKILL."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.host.marked_processes import kill_marked_processes
from mlscale.verify_resume import stop_request as halts
from mlscale.verify_resume.kill_points import KillPoint

_POLL_SECONDS = 0.02
_LAST_LINES = 12
_MARK = "MLSCALE_VERIFY_RESUME"  # marks all processes of a command, also those that have left its session
_RANK_CODE = re.compile(r"^E\d{4} .* failed \(exitcode: (\d+)\) local_rank:", re.MULTILINE)
# torch's log of its launcher, its traceback, and srun's lines about tasks.
_LAUNCHER_LINE = re.compile(r"[EWI]\d{4} |Traceback |srun: |slurmstepd: |job       ")


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


class RunStarter(Protocol):
    """Starts trainings, and kills them: on this machine, or by a scheduler."""

    def train(self, run: Path, kill: KillPoint | None = None) -> CommandExit:
        """Train the run in the folder `run` from its current state; return when it has ended or was killed.

        Args:
            run: a run folder, whose config must have a `Trace` that writes into `<run>/trace`.
            kill: the point at which to kill it.
        """

    def read_output(self, run: Path) -> str:
        """Return what all attempts of a run have printed."""

    def close(self) -> None:
        """End what is left of the trainings."""


BuildCommand = Callable[[Sequence[str]], tuple[list[str], Mapping[str, str]]]
"""From words of mlscale to the command that starts them, and the variables that it needs."""


def build_local_command(words: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
    """Return the command as a user types it: it starts its ranks itself."""
    return [sys.executable, "-m", "mlscale", *words], {}


@dataclass(frozen=True)
class CommandStarter:
    """Trains by a command on this machine, and kills all of its processes at once, by SIGKILL.

    Attributes:
        root: the folder of runs.
        build_command: adds the launcher to a command.
    """

    root: Path
    build_command: BuildCommand = build_local_command

    def train(self, run: Path, kill: KillPoint | None = None) -> CommandExit:
        folder, log = run / "trace", self._get_log_path(run)
        halts.write_stop_order(folder, *((kill.phase, kill.step) if kill else ()))
        start = time.monotonic()
        # All attempts of a run write to one log: only what this one adds is read.
        offset = log.stat().st_size if log.exists() else 0
        # Like `mlscale runs resume`: with the run's own config, not composed again. A run without checkpoints restarts.
        words, variables = self.build_command(["train", f"resume={run}", f"runs_dir={self.root}", "trust=true"])
        mark = secrets.token_hex(8)
        with log.open("ab") as out:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **variables, _MARK: mark},
                # One signal to the group reaches the ranks and their fork server, too.
                start_new_session=True,
            )
            with _kill_all_at_end(process, mark):
                while process.poll() is None and not halts.get_stopped_path(folder).exists():
                    time.sleep(_POLL_SECONDS)
                # Read before all are killed: None then means that the run was still there to be killed.
                code = process.poll()
        text = read_from(log, offset)
        # torchrun ends with 1 whatever its ranks end with, and prints their codes.
        if code and (of_rank := _RANK_CODE.search(text)):
            code = int(of_rank[1])
        return CommandExit(code, extract_error_text(text), time.monotonic() - start)

    def read_output(self, run: Path) -> str:
        return read_from(self._get_log_path(run), 0)

    def close(self) -> None:
        """Nothing is left: each training was waited for or killed."""

    def _get_log_path(self, run: Path) -> Path:
        return self.root / f"{run.name}.log"


@contextlib.contextmanager
def _kill_all_at_end(process: subprocess.Popen[bytes], mark: str) -> Iterator[None]:
    """Kill all processes of the command at the end of the block: ranks and their fork server, too."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        # torchrun's ranks have left the group.
        kill_marked_processes(_MARK, mark)


def read_from(log: Path, offset: int) -> str:
    """Return the text of a file from a byte on; empty where the file does not exist."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


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


def extract_error_text(text: str) -> str:
    """Return the last error that a command has printed, or its last lines."""
    lines = text.strip().splitlines()
    errors = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    if not errors:
        return "\n".join(lines[-_LAST_LINES:])
    # Without the lines that a launcher adds about the processes that have failed.
    rest = itertools.takewhile(lambda line: not _LAUNCHER_LINE.match(line), lines[errors[-1] + 1 :])
    return "\n".join([lines[errors[-1]].removeprefix("error: "), *rest])
