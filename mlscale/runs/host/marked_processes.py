"""Signal all processes that were started with a variable in their environment, whatever session they are in (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_POLL_SECONDS = 0.02
_KILL_SECONDS = 10.0


def list_marked_processes(variable: str, value: str) -> list[int]:
    """Return the ids of processes that were started with this variable, zombies left out (proc(5)); none where the
    system has no `/proc`."""
    mark = f"{variable}={value}".encode()
    return [
        int(path.name) for path in Path("/proc").glob("[0-9]*") if mark in _read_bytes(path / "environ").split(b"\0")
    ]


def signal_marked_processes(variable: str, value: str, number: signal.Signals) -> None:
    """Send a signal to every process with this variable."""
    # By their environment: torchrun's ranks have sessions of their own, which no group or session lists.
    for pid in list_marked_processes(variable, value):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def kill_marked_processes(variable: str, value: str, children: Sequence[subprocess.Popen[bytes]] = ()) -> None:
    """Kill every process with this variable, and wait until none is left; at most ten seconds.

    Args:
        children: those of this process, which are zombies until they are polled.
    """
    deadline = time.monotonic() + _KILL_SECONDS
    while time.monotonic() < deadline:
        # Repeatedly: a process may have been forked while the others were listed.
        signal_marked_processes(variable, value, signal.SIGKILL)
        for process in children:
            process.poll()
        if not list_marked_processes(variable, value):
            return
        time.sleep(_POLL_SECONDS)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is of another user
        return b""
