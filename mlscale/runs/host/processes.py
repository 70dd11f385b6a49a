"""Processes: check if the one that started a run is still alive.

Signals that ask a run to save and to end, and processes that must not be ended by them before it has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import current_process, resource_tracker, util
from pathlib import Path
from typing import Any

from mlscale.errors import Exit, MLScaleError

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


OWN_NAME = "mlscale-"  # the names of processes begin so that let stop signals arrive when they are ready for them
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@contextlib.contextmanager
def block_stop_signals() -> Iterator[None]:
    """Block stop signals in this thread during the block, and for good in the processes that it starts.

    What is sent to the whole process group, as by `timeout`, systemd and a closed terminal, ends none of them, and what
    a process gets while they are blocked arrives once it calls `unblock_stop_signals`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        # Started by the others at need; it unblocks two of them in this thread.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_stop_signals() -> None:
    """Let stop signals arrive in this thread, those that were sent before included."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


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


def _unblock_in_foreign_process(_: object) -> None:
    """Let stop signals arrive in a process that a user's code started from the fork server: its pool ends it by one."""
    if not current_process().name.startswith(OWN_NAME):
        unblock_stop_signals()


# Called in each process that is started from one that has imported this, as the fork server has.
util.register_after_fork(block_stop_signals, _unblock_in_foreign_process)
