"""Runs a user's Python code on samples in the training process, or in processes of its own."""

from __future__ import annotations

import ast
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NoReturn
from weakref import WeakSet

from mlscale.data.shards.system_files import report_once
from mlscale.data.workers.serve_requests import Work
from mlscale.data.workers.worker_pool import WorkerPool
from mlscale.data.workers.worker_process import WorkerFailure
from mlscale.errors import MLScaleError

_START_SECONDS = 1.0
"""Seconds that are spent in this process before others are started, which takes about as long: a run that ends before
has lost nothing, and a longer one at most that."""
_OVERHEAD_SECONDS = 400e-6
"""The cost of a photograph of 224 pixels on the way to a worker and back, on a busy machine (docs/benchmarks.md)."""
_MAX_COPY_BYTES = 256 << 20
"""Code and data that each worker gets a copy of without being asked for; a data set in memory may be larger."""


class SampleExecutor:
    """Has workers or none; the samples are the same wherever they are made.

    Args:
        build_work: returns what workers do.
        name: of the code, for messages: 'the transform RandAugment'.
        count: workers that there may be.
        at_once: start them before the first sample; else once the code has taken enough time here.
        is_required: not to be able to start them is an error; else the code stays here, which is reported.
    """

    def __init__(
        self, build_work: Callable[[], Work], *, name: str, count: int, at_once: bool, is_required: bool
    ) -> None:
        self._build_work, self._name, self._count = build_work, name, count
        self._is_pending, self._is_required = at_once, is_required
        # One worker would be as fast as this process.
        self._is_measuring = not at_once and count > 1
        self._pool: WorkerPool | None = None
        self._spent, self._samples, self._epochs = 0.0, 0, 0

    @property
    def is_measuring(self) -> bool:
        """True while the choice depends on `record_cost`."""
        return self._is_measuring

    @contextmanager
    def run_epoch(self) -> Iterator[None]:
        """Start the workers if they are to be there at once; send the code again if it has changed since.

        Raises:
            MLScaleError: they are required, and can't be started.
        """
        # A bad sample is replaced by a stream within the stream, for which nothing has changed.
        if not self._epochs:
            self._update_workers()
        self._epochs += 1
        try:
            yield
        finally:
            self._epochs -= 1

    def find_pool(self) -> WorkerPool | None:
        """Return the workers; None where the work is to be done in this process, now or always."""
        if self._pool is None or self._pool.is_ready:
            return self._pool
        if self._pool.error is not None:
            self._keep_here(self._pool.error)
        return None

    def record_cost(self, seconds: float, samples: int) -> None:
        """Count what the code has taken in this process, and decide once it is enough to be sure."""
        self._spent, self._samples = self._spent + seconds, self._samples + samples
        if not self._is_measuring or self._spent < _START_SECONDS:
            return
        # Once: a choice that changed back and forth would cost more than a wrong one.
        self._is_measuring = False
        mean_seconds = self._spent / self._samples
        if mean_seconds * (self._count - 1) < _OVERHEAD_SECONDS:
            report_once(f"samples   {self._name} stays in this process: it takes {mean_seconds * 1e6:.0f} µs a sample")
            return
        try:
            self._pool = WorkerPool(self._count, self._pickle_work(_MAX_COPY_BYTES))
        except MLScaleError as error:
            self._keep_here(error)
            return
        report_once(
            f"samples   {self._name} moves to {self._count} processes: it takes {mean_seconds * 1e3:.2g} ms a sample "
            "here (data.executor=thread keeps it here)"
        )

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _update_workers(self) -> None:
        if self._pool is None and not self._is_pending:
            return
        try:
            payload = self._pickle_work(None)
            if self._pool is None:
                self._pool, self._is_pending = WorkerPool(self._count, payload), False
                # Chosen by the user, perhaps because the code must not run here: so none of it does.
                self._pool.wait_until_ready()
            elif self._pool.is_ready:
                # Code with a schedule changes between epochs.
                self._pool.replace_work(payload)
        except (WorkerFailure, MLScaleError) as error:
            if self._is_required:
                self._refuse(error)
            self._keep_here(error)

    def _pickle_work(self, most: int | None) -> bytes:
        if (script := find_unguarded_script()) is not None:
            raise MLScaleError(
                f"each new process would run {script} again",
                where=str(script),
                why="the script of the main process is imported by each, and it has no if __name__ == '__main__'",
                fix="put what the script does into a function, and call it under if __name__ == '__main__':",
            )
        # By pickle alone: multiprocessing's own would send tensors as files in /dev/shm.
        try:
            payload = pickle.dumps(self._build_work())
        except Exception as error:
            raise MLScaleError(
                f"{self._name} can't be sent to another process",
                where="data.executor",
                why=f"{type(error).__name__}: {error}",
                fix="define it at the top level of a module: lambdas and functions inside of functions can't be found "
                "by a name\ndata.executor=thread",
            ) from error
        if most is not None and len(payload) > most:
            raise MLScaleError(
                f"each process would get a copy of its {len(payload) >> 20:,} MiB",
                where="data.executor",
                fix="data.executor=process",
            )
        return payload

    def _refuse(self, error: WorkerFailure | MLScaleError) -> NoReturn:
        # Tried again by the next epoch, which must not go on in this process.
        self._pool, self._is_pending = None, True
        if isinstance(error, MLScaleError):
            raise error
        raise MLScaleError(
            f"{self._name} can't be read by another process",
            where=f"data.executor; {error.failure.where}",
            why=error.failure.why,
            fix="put its definition into a module that can be imported, not into a notebook\ndata.executor=thread",
        ) from error

    def _keep_here(self, error: Exception) -> None:
        self._pool, self._is_pending = None, False
        why = error.failure.why if isinstance(error, WorkerFailure) else str(error.args[0])
        if isinstance(error, MLScaleError) and error.why:
            why += f" ({error.why})"
        report_once(f"samples   {self._name} stays in this process: {why}")


def find_unguarded_script() -> Path | None:
    """Return the script of the main process, if what it does would be done again by each process that it starts."""
    main = sys.modules.get("__main__")
    # With a spec it was started by `python -m`, whose modules are guarded; without a file it is a notebook or -c.
    if main is None or getattr(main, "__spec__", None) is not None or not getattr(main, "__file__", None):
        return None
    path = Path(str(main.__file__))
    return None if _has_guard(path) else path


@lru_cache(maxsize=1)
def _has_guard(path: Path) -> bool:
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        # Not Python source, such as a frozen application: multiprocessing has rules of its own there.
        return True
    return any(
        isinstance(node, ast.If)
        and any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))
        for node in tree.body
    )


class ExecutorSet:
    """Keeps the executors of a backend's streams for as long as these exist."""

    def __init__(self) -> None:
        # Weakly: a stream is opened for every look at the data, and most of them never make a batch.
        self._executors: WeakSet[SampleExecutor] = WeakSet()

    def keep_executor(self, executor: SampleExecutor | None) -> SampleExecutor | None:
        """Return the executor, which `close` ends."""
        if executor is not None:
            self._executors.add(executor)
        return executor

    def close(self) -> None:
        """End all workers; they start again with the next epoch, if there is one."""
        # A copy, because a stream that is collected meanwhile takes its executor out of the set.
        for executor in list(self._executors):
            executor.close()


def check_executor(choice: str, *, has_code: bool, workers: int) -> None:
    """Raise if `data.executor` has no effect.

    Args:
        choice: its value.
        has_code: Python code of a user's own works on the samples.
        workers: the number of processes that there may be.

    Raises:
        MLScaleError: processes are chosen, and nothing runs in them.
    """
    if choice != "process":
        return
    if not has_code:
        raise MLScaleError(
            "data.executor=process has no effect: no transform in Python works on the samples",
            where="data.executor",
            why="what mlscale does to them runs in threads, which need no copies",
            fix="data.executor=auto",
        )
    if workers < 1:
        raise MLScaleError(
            "data.executor=process has no processes with data.workers=0", where="data.workers", fix="data.workers=auto"
        )


Clock = Callable[[], float]
"""Returns seconds."""


def read_cpu_clock() -> float:
    """Return the seconds that this thread has computed: what other processes take away is not counted."""
    return time.thread_time()


def read_busy_clock() -> float:
    """Return seconds without those that this thread has waited for a core: it computed, or waited for a disk."""
    return time.perf_counter() - _read_queue_seconds()


def _read_queue_seconds() -> float:
    try:
        # Nanoseconds on a core, nanoseconds waiting for one, time slices.
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # not Linux, or a kernel without these statistics
        return time.perf_counter() - time.thread_time()
