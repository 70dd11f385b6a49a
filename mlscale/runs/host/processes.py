"""Processes: check if the one that started a run is still alive."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_STATE, _STARTED = 0, 19  # fields of `_read_stat_fields`


def identify_process() -> dict[str, Any]:
    """Return the number and start time of this process: a later process may get the same number."""
    return {"pid": os.getpid(), "pid_start": read_start_ticks(os.getpid())}


def get_process_state(attempt: Mapping[str, Any]) -> str:
    """Return running, crashed, or elsewhere: started on another machine, so that its process can't be checked."""
    if attempt["host"] != socket.gethostname():
        return "elsewhere"
    return "running" if is_alive(int(attempt["pid"]), attempt.get("pid_start")) else "crashed"


def is_alive(pid: int, started: int | None) -> bool:
    """Return True if process `pid` is alive and began at `started` (None: at any time). A zombie counts as ended: in a
    container without an init process it is never removed."""
    try:
        # Signal 0 is not delivered: the system only checks that the process exists (kill(2)).
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is alive, and of another user
    fields = _read_stat_fields(pid)
    if fields is None:
        return True
    return fields[_STATE] not in ("Z", "X") and started in (None, int(fields[_STARTED]))


def read_start_ticks(pid: int) -> int | None:
    """Return the start time of a process, in clock ticks since the boot; None where the system doesn't report it."""
    fields = _read_stat_fields(pid)
    return int(fields[_STARTED]) if fields is not None else None


def measure_process_age() -> float | None:
    """Return the seconds since this process was started; None where the system doesn't report it."""
    ticks = read_start_ticks(os.getpid())
    if ticks is None:
        return None
    # Both count from the boot, sleep of the machine included.
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _read_stat_fields(pid: int) -> list[str] | None:
    """Return the fields of `/proc/<pid>/stat` from the state on (proc(5)); None where they can't be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # After the last parenthesis: the program's name, in parentheses, may itself have spaces and parentheses.
    return stat.rpartition(")")[2].split()


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
