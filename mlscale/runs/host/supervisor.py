"""Run a command that ends with the process that started this one, however that ends, SIGKILL included.

    python -I -S supervisor.py '{"grace_s": 10, "at_end": []}' COMMAND...

The starting process holds the other end of this one's standard input. The system closes it with that process, which
needs no signal handler, and is the same on Linux and macOS; a parent-death signal comes when the *thread* ends that has
started the child, and reaches one process only. It imports the standard library alone, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h: the signal that a process gets when its parent has ended
_SIGNALLED = 128  # added to the number of a signal, as shells do


def main(plan: str, command: Sequence[str]) -> int:
    """Run the command until it or the starting process ends; return its exit code."""
    settings = json.loads(plan)
    # Ctrl-C is for the starting process, which closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        # A group of its own, so that all of its processes can be ended.
        start_new_session=True,
        # For the case that this process itself is killed. It has no other thread yet, and its first one ends last.
        preexec_fn=_find_death_signal(),
    )
    for passed_on in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(passed_on, lambda number, _: process.send_signal(number))
    threading.Thread(target=_end_with_pipe, args=(process, settings["grace_s"]), daemon=True).start()
    code = process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if settings["at_end"]:
        with open(os.devnull, "r+b") as nothing, contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(settings["at_end"], stdin=nothing, stdout=nothing, stderr=nothing, timeout=60, check=False)
    return code if code >= 0 else _SIGNALLED - code


def _find_death_signal() -> Callable[[], object] | None:
    """Return what lets a child be killed with its parent; None where the system can't."""
    try:
        return functools.partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):  # not Linux
        return None


def _end_with_pipe(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """Wait until the other end of the standard input is closed; then end the command, if need be by SIGKILL."""
    while os.read(0, 1024):
        continue
    # Its own processes it ends itself: a server that loses them waits for them, and leaves shared memory behind.
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
