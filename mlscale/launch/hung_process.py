"""End a process that hangs: no exception reaches its main thread, so another thread reports the error and ends it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.launch import rank_failures as failures
from mlscale.launch.rank import is_rank_process
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
