"""Whether the process that started a run is still there."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this() -> dict[str, Any]:
    """This process, so that it can be told from a later one that got the same number."""
    return {"pid": os.getpid(), "pid_start": start_ticks(os.getpid())}


def state(attempt: Mapping[str, Any]) -> str:
    """running, crashed, or elsewhere: it was started on another machine, and can't be seen from here."""
    if attempt["host"] != socket.gethostname():
        return "elsewhere"
    return "running" if alive(int(attempt["pid"]), attempt.get("pid_start")) else "crashed"


def alive(pid: int, started: int | None) -> bool:
    """Whether process `pid` lives, and is the one that began at `started`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and belongs to somebody else
    return started is None or start_ticks(pid) in (started, None)


def start_ticks(pid: int) -> int | None:
    """When a process began, in the clock ticks of its machine; None where the system doesn't tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
