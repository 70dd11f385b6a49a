"""Run the client of a platform: kubectl, sky."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence

from mlscale.errors import Exit, MLScaleError

_MAX_OUTPUT = 600


def has_client(words: Sequence[str]) -> bool:
    """Return True if the program of a command is installed."""
    return shutil.which(words[0]) is not None


def run_client(words: Sequence[str], timeout_s: float | None = None) -> str:
    """Run a command of a client, and return what it prints.

    Args:
        words: the command.
        timeout_s: the longest that it may take; None for no limit.

    Raises:
        MLScaleError: it is not installed, fails, or takes longer (exit code 5).
    """
    try:
        # Without a terminal: a client that asks for a login would wait for ever.
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=timeout_s
        )
    except FileNotFoundError as error:
        raise _create_absent_error(words) from error
    except subprocess.TimeoutExpired as error:
        raise _create_client_error(words, f"{words[0]} did not finish within {timeout_s:g} s") from error
    if done.returncode != 0:
        lines = " | ".join((done.stderr or done.stdout).strip().splitlines()[-4:])[-_MAX_OUTPUT:]
        raise _create_client_error(words, f"{words[0]} ended with exit code {done.returncode}", lines)
    return done.stdout


def stream_client(words: Sequence[str]) -> None:
    """Run a command of a client whose output goes to this process's own, such as a log that is followed.

    Raises:
        MLScaleError: it is not installed, or fails (exit code 5); it has printed why.
    """
    try:
        done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise _create_absent_error(words) from error
    if done.returncode != 0:
        raise _create_client_error(words, f"{words[0]} ended with exit code {done.returncode}")


def _create_absent_error(words: Sequence[str]) -> MLScaleError:
    return MLScaleError(
        f"{words[0]} is not installed here",
        where=shlex.join(words),
        why="it is the platform's client",
        fix=f"{shlex.join(words)}, on a machine that has it",
        exit=Exit.ENVIRONMENT,
    )


def _create_client_error(words: Sequence[str], what: str, why: str = "") -> MLScaleError:
    fix = f"{shlex.join(words)}, once {words[0]} reaches its server"
    return MLScaleError(what, where=shlex.join(words), why=why, fix=fix, exit=Exit.ENVIRONMENT)
