"""Stacks of a process's threads as text, also where one holds the GIL, so that Python code can't report them."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType

# Files of debuggers: their frames are on the stack at a breakpoint.
_DEBUGGERS = ("pdb.py", "bdb.py", "pydevd.py")
# Functions of torch that return only when the other ranks have arrived; DDP's is the backward pass.
_WAITING = ("_engine_run_backward", "all_reduce", "all_gather", "broadcast", "barrier", "reduce", "wait")
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


def restart_backstop(seconds: float) -> None:
    """Have the stacks written to standard error in `seconds` unless this is called again before: if native code holds
    the GIL until then, no Python thread could report it, and the thread of faulthandler needs none."""
    with suppress(OSError, ValueError):  # a standard error without a file
        faulthandler.dump_traceback_later(seconds, file=sys.__stderr__ or sys.stderr)
