"""Processes: whether the one that started a run is still there, and the end of one that we started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STATE, _STARTED = 0, 19  # fields of `_stat`


def this() -> dict[str, Any]:
    """This process, so that it can be told from a later one that got the same number."""
    return {"pid": os.getpid(), "pid_start": start_ticks(os.getpid())}


def state(attempt: Mapping[str, Any]) -> str:
    """running, crashed, or elsewhere: it was started on another machine, and can't be seen from here."""
    if attempt["host"] != socket.gethostname():
        return "elsewhere"
    return "running" if alive(int(attempt["pid"]), attempt.get("pid_start")) else "crashed"


def alive(pid: int, started: int | None) -> bool:
    """Whether process `pid` lives, and is the one that began at `started`. One that has ended, and that its parent has
    not asked about yet, is dead: in a container without an init process it would stay so for good."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and belongs to somebody else
    fields = _stat(pid)
    if fields is None:
        return True
    return fields[_STATE] not in ("Z", "X") and started in (None, int(fields[_STARTED]))


def start_ticks(pid: int) -> int | None:
    """When a process began, in the clock ticks of its machine; None where the system doesn't tell."""
    fields = _stat(pid)
    return int(fields[_STARTED]) if fields is not None else None


def end_session(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End a process that leads a session of its own: asked first, then all that is left of the session killed."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _stat(pid: int) -> list[str] | None:
    """What Linux tells of a process, from its state on (proc(5)); None where it doesn't tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()
