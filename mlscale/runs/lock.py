"""Lock a run for one process at a time: a lock on its folder, which the system releases when the process ends."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlscale.atomic_files import make_folders
from mlscale.errors import Exit, MLScaleError
from mlscale.file_locks import lock_file, wait_for_lock
from mlscale.runs.folder import RunFolder
from mlscale.runs.host import processes as process

_LINGER_SECONDS = 15.0  # children of a killed process may hold its lock until they end, too
# A node that its scheduler has lost may still train, until it is reached again; NFS keeps a dead node's locks for 90 s.
_JOB_SECONDS = 150.0


@contextlib.contextmanager
def hold_run_lock(run: RunFolder, *, is_job: bool = False) -> Iterator[None]:
    """Hold the lock of the run inside the block.

    Args:
        is_job: whether a scheduler has started this process: then an earlier start of the job may hold the lock.

    Raises:
        MLScaleError: another process holds it; in a job with exit code 5, as a later start may succeed.
    """
    handle = os.open(run.path, os.O_RDONLY)
    forked = _close_in_children(handle)
    try:
        _acquire_run_lock(handle, run, is_job=is_job)
        yield
    finally:
        # Before closing: the number may be given to another file at once, and a forked child would close that one.
        forked.clear()
        os.close(handle)


@contextlib.contextmanager
def lock_runs_root(root: Path, *, wanted: bool = True) -> Iterator[list[Path]]:
    """Let one process at a time search for an unfinished run below `root`, and start one if none is found.

    Yields the folders that it created, so that a failed start can remove them. Without `wanted` it does nothing.

    The folder itself is locked: no lock file is left behind, and the system releases the lock when the process ends.
    On a file system without locks no process waits.
    """
    if not wanted:
        yield []
        return
    made = make_folders(root)
    handle = os.open(root, os.O_RDONLY)
    forked = _close_in_children(handle)
    try:
        _wait_for_lock(handle)
        yield made
    finally:
        forked.clear()
        os.close(handle)


def _wait_for_lock(handle: int) -> None:
    with contextlib.suppress(OSError):  # a file system without locks
        if not wait_for_lock(handle, 0):
            print("waiting   another process is starting a run here", file=sys.stderr, flush=True)
            wait_for_lock(handle, math.inf)


def _acquire_run_lock(handle: int, run: RunFolder, *, is_job: bool) -> None:
    begin, limit, noticed = time.monotonic(), _JOB_SECONDS if is_job else _LINGER_SECONDS, False
    while True:
        try:
            lock_file(handle)
            return
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return  # a file system without locks: only the status of the run protects it
            # A crashed run whose lock is held: children of the killed process are ending, so this waits for them.
            last = run.run["attempts"][-1]
            waits = is_job or process.get_process_state(last) == "crashed"
            if not waits or time.monotonic() - begin > limit:
                raise _create_locked_error(run, last, is_job=is_job) from error
            if is_job and not noticed:
                noticed = True
                print(
                    f"waiting   an earlier start of the job holds the run, up to {limit:g} s",
                    file=sys.stderr,
                    flush=True,
                )
        time.sleep(0.2)


def _create_locked_error(run: RunFolder, last: Mapping[str, Any], *, is_job: bool) -> MLScaleError:
    return MLScaleError(
        f"another process is working on the run {run.path.name}",
        where=str(run.path),
        why=f"process {last['pid']} on {last['host']} started on {last['started']}",
        fix="mlscale runs ls, which shows how it stands: wait until it ends, or stop it",
        exit=Exit.ENVIRONMENT if is_job else Exit.USER,
    )


def _close_in_children(handle: int) -> list[int]:
    """Return the handle in a list; until the list is emptied, forked children close their copy of it.

    A lock lasts as long as any process has the file open: a child that outlives its parent would hold the run.
    """
    handles = [handle]

    def close() -> None:
        for number in handles:
            with contextlib.suppress(OSError):
                os.close(number)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)
    return handles
