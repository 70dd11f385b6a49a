"""The end of a process that hangs: no exception reaches its main thread, so a thread beside it has the last word."""

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
from mlscale.runs import processes as process
from mlscale.runs.folder import RunFolder
from mlscale.secrets.mask import Masker


def end(
    folder: Path, error: MLScaleError, others: Iterable[Mapping[str, Any]], tell: Callable[[RunFolder], None]
) -> None:
    """Leave `error` where it is told, and end this process, its loader workers, and the ranks that hang with it.

    Args:
        folder: the run's.
        others: other ranks on this machine, `pid` and `pid_start` of each. They are killed, for one that is stuck in
            code that does not come back hears no other signal.
        tell: called with the sealed run, where this process is the whole run: nobody else could tell its end.
    """
    if "RANK" in os.environ:
        failures.write(folder, int(os.environ["RANK"]), error)  # the launching process tells it, and seals the run
    else:
        with contextlib.suppress(Exception):  # whatever is wrong with the disk, the process ends
            run = RunFolder.open(folder, Masker.of_process())
            run.seal("failed", sentence=str(error))
            tell(run)
        print(f"error: {Masker.of_process().mask(str(error))}", file=sys.stderr, flush=True)
    for other in others:
        if process.alive(int(other["pid"]), other["pid_start"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(other["pid"]), signal.SIGKILL)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(int(error.exit))
