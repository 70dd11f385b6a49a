"""Measures what a server's requests cost its event loop, by another event loop in place of the usual one.

A copy of this file is a server's uvloop. The processor time of each callback, of the loop's thread alone, and each wait
of another thread for the interpreter's lock, as far as this process computed meanwhile, is a line of a file.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from asyncio import events
from pathlib import Path

_LEAST_MS, _EVERY_S = 2.0, 0.001
_run = events.Handle._run


def new_event_loop() -> asyncio.AbstractEventLoop:
    """What uvloop is asked for."""
    setattr(events.Handle, "_run", _measured)  # noqa: B010 - it is no part of the types
    threading.Thread(target=_wait_for_the_lock, daemon=True).start()
    return asyncio.SelectorEventLoop()


def _measured(handle: events.Handle) -> None:
    what, begin = repr(handle)[:200], time.thread_time()
    _run(handle)
    _note("loop", 1000 * (time.thread_time() - begin), what)


def _wait_for_the_lock() -> None:
    waited = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    while True:
        begin, computed, delayed = time.perf_counter(), time.process_time(), _delayed_s(waited)
        time.sleep(_EVERY_S)
        gap = time.perf_counter() - begin - _EVERY_S - (_delayed_s(waited) - delayed)
        _note("lock", 1000 * min(gap, time.process_time() - computed), "")


def _delayed_s(waited: Path) -> float:
    """Seconds that this thread could have run, and other processes did."""
    return int(waited.read_text().split()[1]) / 1e9 if waited.exists() else 0.0


def _note(kind: str, spent_ms: float, what: str) -> None:
    if spent_ms > _LEAST_MS:
        with Path(os.environ["LOOP_WATCH"]).open("a") as file:
            file.write(f"{kind} {spent_ms:.2f} {what}\n")
