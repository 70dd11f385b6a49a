"""Run a command in the background while others run, such as a server or a load test; it ends with its block."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.host.supervised_process import start_supervised

T = TypeVar("T")
_POLL_SECONDS, _GRACE_SECONDS = 0.05, 20.0
_LONGEST = 600  # characters of a log in a message


@dataclass(frozen=True)
class BackgroundCommand:
    """A command of mlscale in its own session.

    Attributes:
        words: the command and its overrides.
        process: its supervisor, which passes on SIGTERM and SIGUSR1, and ends with its exit code.
        out, log: files with its stdout and stderr.
    """

    words: tuple[str, ...]
    process: subprocess.Popen[bytes]
    out: Path
    log: Path

    def wait_until_ready(self, ready: Callable[[], T | None], seconds: float, what: str) -> T:
        """Wait until `ready` returns something other than None, and return that.

        Raises:
            MLScaleError: the command ended, or it takes longer than `seconds` (exit code 5).
        """
        deadline = time.monotonic() + seconds
        while (outcome := ready()) is None:
            if self.process.poll() is not None:
                raise self._build_error(f"mlscale {self.words[0]} ended with exit code {self.process.returncode}")
            if time.monotonic() > deadline:
                raise self._build_error(f"mlscale {self.words[0]}: {what} took longer than {seconds:g} s")
            time.sleep(_POLL_SECONDS)
        return outcome

    def stop_command(self, signum: signal.Signals = signal.SIGTERM, seconds: float = _GRACE_SECONDS) -> int:
        """Send it the signal `how`, wait for its end, and return its exit code.

        Raises:
            MLScaleError: it takes longer than `seconds` (exit code 5).
        """
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise self._build_error(f"mlscale {self.words[0]} did not end in {seconds:g} s") from error

    def _build_error(self, what: str) -> MLScaleError:
        return MLScaleError(
            what,
            where=str(self.log),
            why=_summarize_log(self.log.read_text(encoding="utf-8", errors="replace")),
            exit=Exit.ENVIRONMENT,
            fix=f"mlscale {shlex.join(self.words)}, alone: it shows why",
        )


def _summarize_log(text: str) -> str:
    """Return the error that a log ends with, or without one its last lines, as one line."""
    lines = text.strip().splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    # From its first line: a fix may have so many that the last lines do not show what is wrong.
    if errors:
        return " | ".join(line.strip() for line in lines[errors[-1] :])[:_LONGEST]
    return " | ".join(lines[-4:])[-_LONGEST:]


@contextlib.contextmanager
def start_background_command(words: Sequence[str], folder: Path) -> Iterator[BackgroundCommand]:
    """Run `mlscale <words>` during the block; at its end, all processes of the command are ended.

    Args:
        words: the command and its overrides.
        folder: the folder for its output, `<command>.out` and `<command>.log`.
    """
    out, log = (folder / f"{words[0]}.{kind}" for kind in ("out", "log"))
    # The child finds the same packages as this process, whose path may differ from that of a new interpreter.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (
        out.open("wb") as stdout_file,
        log.open("wb") as stderr_file,
        start_supervised(
            [sys.executable, "-m", "mlscale", *words],
            grace_s=_GRACE_SECONDS,
            output=stdout_file,
            errors=stderr_file,
            environment=environment,
        ) as process,
    ):
        yield BackgroundCommand(tuple(words), process, out, log)
