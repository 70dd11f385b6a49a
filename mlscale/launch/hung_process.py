"""End a process that hangs: no exception reaches its main thread, so another thread reports the error and ends it.

End a rank that hangs while others have failed: only its launcher could, and srun and torchrun may not.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlscale.errors import Exit, MLScaleError
from mlscale.launch import rank_failures as failures
from mlscale.launch.rank import is_rank_process
from mlscale.launch.rank_failures import has_rank_failures
from mlscale.runs.folder import RunFolder
from mlscale.runs.host import processes as process
from mlscale.secrets.mask import Masker


def end_hung_process(
    folder: Path, error: MLScaleError, others: Iterable[Mapping[str, Any]], notify: Callable[[RunFolder], None]
) -> None:
    """Record or print `error`, and end this process, its loader workers, and the ranks that hang with it.

    Args:
        folder: the run's.
        others: other ranks on this machine, `pid` and `pid_start` of each. They are killed, for a rank that is stuck in
            native code handles no other signal.
        notify: called with the sealed run if this process is the only one of the run, to report its end.
    """
    if is_rank_process():  # the launching process prints it, and seals the run
        with contextlib.suppress(OSError):
            failures.write_rank_failure(folder, int(os.environ["RANK"]), error)
    else:
        with contextlib.suppress(Exception):  # the process must end even if the disk fails
            run = RunFolder.open(folder, Masker.create_for_process())
            run.seal_run("failed", sentence=str(error))
            notify(run)
        print(f"error: {Masker.create_for_process().mask_text(str(error))}", file=sys.stderr, flush=True)
    for other in others:
        if process.is_alive(int(other["pid"]), other["pid_start"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(other["pid"]), signal.SIGKILL)
    for worker in multiprocessing.active_children():
        worker.kill()
    # Not sys.exit: it would end only this thread, and the interpreter would wait for the main thread.
    os._exit(int(error.exit))


# A rank that waits for a failed one learns of it within seconds; one that computes may take part for a while.
_GRACE_SECONDS = 60.0
_POLL_SECONDS = 2.0  # the folder may be on a file system that all ranks of a cluster share


@contextlib.contextmanager
def end_if_hung(folder: Path, rank: int) -> Iterator[None]:
    """End this process if another rank has failed, and the block does not end within a minute.

    A rank that is stuck in code of its own, and not in a collective, meets no time-out.

    Args:
        folder: of the run, in which ranks leave their failures.
        rank: of this process.
    """
    ended = threading.Event()
    watch = threading.Thread(target=_watch_failures, args=(folder, rank, ended), name="mlscale-failures", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()


def _watch_failures(folder: Path, rank: int, ended: threading.Event) -> None:
    failed_at: float | None = None
    while not ended.wait(_POLL_SECONDS):
        # A file system that does not respond for a moment is not a failure.
        with contextlib.suppress(OSError):
            if failed_at is None and has_rank_failures(folder):
                failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE_SECONDS:
            _end_process(folder, rank)


def _end_process(folder: Path, rank: int) -> None:
    error = MLScaleError(
        f"rank {rank} hangs: it is ended {_GRACE_SECONDS:g} s after another rank has failed",
        where=str(folder / "logs"),
        why="it took part in no collective meanwhile; callbacks.stall shows where a rank stands",
        fix="mlscale runs resume last, once you have looked at what this rank did",
        exit=Exit.ENVIRONMENT,
    )
    print(f"error: {error}", file=sys.stderr, flush=True)
    for worker in multiprocessing.active_children():
        worker.kill()
    # Not sys.exit: it would end only this thread, and the interpreter would wait for the main thread.
    os._exit(int(error.exit))
