"""A piece of work in a forked child that may hang, die or take all memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h: the signal that a process gets when its parent has ended
_MEMORY = 6 << 30  # bytes that the child may allocate


def run_child(work: Callable[[], bytes], seconds: float) -> bytes | None:
    """Return what `work` returns in a forked child, 'died' if it dies, None if its time is over.

    Args:
        work: may limit its CPU time by `limit_cpu_seconds`.
        seconds: by the wall clock.
    """
    scratch = tempfile.mkdtemp(prefix="mutant-")
    read, write = os.pipe()
    sys.stdout.flush()
    if not (pid := os.fork()):
        with contextlib.suppress(BaseException):
            os.close(read)
            os.setsid()
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # it has a session of its own, and would go on
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
            tempfile.tempdir = os.environ["TMPDIR"] = scratch
            with open(os.devnull, "r+b") as nothing:
                for fd in (0, 1, 2):
                    os.dup2(nothing.fileno(), fd)
            result = work()
            with open(write, "wb") as pipe:
                pipe.write(b"=" + result)
        os._exit(0)
    os.close(write)
    try:
        content = _read_to_end(read, time.monotonic() + seconds)
    finally:
        os.close(read)
        # Killed only now, and as a group: a child that has ended has perhaps left children of its own.
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        shutil.rmtree(scratch, ignore_errors=True)
    if content:
        return content[1:]
    is_over = content is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF)
    return None if is_over else b"died"


def limit_cpu_seconds(seconds: float) -> None:
    """End this process once it has used so much more CPU time, which, unlike the time, does not depend on others."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _read_to_end(pipe: int, deadline: float) -> bytes | None:
    """Return what is written until the last writer closes the pipe; None where that is after the deadline."""
    content = b""
    while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(pipe, 1 << 16)
        if not part:
            return content
        content += part
    return None
