"""Signals that ask a run to save and to end, and processes that must not be ended by them before it has."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from multiprocessing import current_process, resource_tracker, util

from mlscale.errors import Exit, MLScaleError

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
