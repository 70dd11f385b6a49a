"""Turn off Python's garbage collection while modules are imported and configs composed: nearly all objects stay.

Importing torch and Lightning creates hundreds of thousands of objects; scanning them repeatedly takes a fifth of the
time, and as much again at the end of the process.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_is_own_process = False


def mark_own_process() -> None:
    """Mark this process as mlscale's own: a command line, or the fork server. No other process is changed."""
    global _is_own_process
    _is_own_process = True


def is_own_process() -> bool:
    """Return True if this process is marked as mlscale's own."""
    return _is_own_process


@contextlib.contextmanager
def defer_garbage_collection() -> Iterator[None]:
    """Turn off collection during the block; objects at its end are never scanned, and stay shared with forked ranks.

    Cyclic garbage from the block is never freed: use it only for what happens once. Without `mark_own_process` it does
    nothing.
    """
    before = gc.isenabled()
    if _is_own_process:
        gc.disable()
    try:
        yield
    finally:
        if _is_own_process:
            # A collection writes to the header of each object it scans, and so copies memory that forked ranks share.
            gc.freeze()
        if before:
            gc.enable()
