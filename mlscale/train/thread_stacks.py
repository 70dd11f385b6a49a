"""Stacks of a process's threads as text, also where one holds the GIL, so that Python code can't report them."""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import IO, Any

# Files of debuggers: their frames are on the stack at a breakpoint.
_DEBUGGERS = ("pdb.py", "bdb.py", "pydevd.py")
# Functions of torch that return only when the other ranks have arrived; DDP's is the backward pass.
_WAITING = ("_engine_run_backward", "all_reduce", "all_gather", "broadcast", "barrier", "reduce", "wait")
# A frame as faulthandler writes it.
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)$', re.MULTILINE)
_IN_TORCH = f"{os.sep}torch{os.sep}"


def format_thread_stacks() -> str:
    """Return the stacks of this process's threads, the main one first, with names, the most recent call last."""
    frames = sys._current_frames()
    main = threading.main_thread()
    # The calling thread is left out: it only takes the stacks.
    threads = [main, *(thread for thread in threading.enumerate() if thread not in (main, threading.current_thread()))]
    parts = []
    for thread in threads:
        if (frame := frames.get(thread.ident or 0)) is not None:
            parts.append(f"{thread.name}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(parts)


def get_main_thread_calls() -> list[tuple[str, int, str]]:
    """Return file, line and function of every call of the main thread, the innermost first."""
    frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)
    calls = []
    while frame is not None:
        calls.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return calls


def is_in_debugger(calls: Iterable[tuple[str, int, str]]) -> bool:
    """Return whether a debugger is active, as at a breakpoint."""
    return any(Path(file).name in _DEBUGGERS or "debugpy" in file for file, _, _ in calls)


def is_in_collective(calls: list[tuple[str, int, str]]) -> bool:
    """Return whether the innermost call is one in which a rank waits for others: DDP's is inside the backward pass."""
    if not calls:
        return False
    file, _, name = calls[0]
    return _IN_TORCH in file and name in _WAITING


def parse_backstop_calls(text: str) -> list[tuple[str, int, str]]:
    """Return the main thread's calls, the innermost first, from a backstop's text, which has that thread last."""
    main = text.rpartition("(most recent call first):")[2]
    return [(frame["file"], int(frame["line"]), frame["name"]) for frame in _FRAME.finditer(main)]


class Backstop:
    """A timer that writes the stacks from outside Python when `restart_countdown` was not called for a while: then
    native code holds the GIL, and no Python thread could report it.

    Args:
        seconds: without a call of `restart_countdown`.
        to: the stream to write to; by default a file without a name, which another process of the same user reads at
            `path`, on Linux.
    """

    def __init__(self, seconds: float, to: IO[Any] | None = None) -> None:
        self._seconds = seconds
        self._own = to is None
        self._file: IO[Any] = to or tempfile.TemporaryFile()  # noqa: SIM115 - it stays open as long as this
        self.path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"

    def restart_countdown(self) -> None:
        """Restart the countdown, and clear the file."""
        if self._own and self._file.seek(0, os.SEEK_END):
            self._file.seek(0)
            self._file.truncate()
        # A second call replaces the timer of the first; the watchdog thread of faulthandler does not need the GIL.
        faulthandler.dump_traceback_later(self._seconds, file=self._file)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        if self._own:
            self._file.close()
