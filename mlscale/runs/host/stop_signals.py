"""Signals that ask a run to save and to end, and processes that must not be ended by them before it has."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker

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
