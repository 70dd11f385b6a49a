"""Runs a user's Python code on samples in the training process, or in processes of its own."""

from __future__ import annotations

import ast
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from weakref import WeakSet

from mlscale.data.workers.serve_requests import Work
from mlscale.data.workers.worker_process import WorkerFailure, WorkerPool
from mlscale.errors import MLScaleError


class SampleExecutor:
    """Has workers; the samples are the same as in this process.

    Args:
        build_work: returns what workers do.
        name: of the code, for messages: 'the transform RandAugment'.
        count: of the workers.
    """

    def __init__(self, build_work: Callable[[], Work], *, name: str, count: int) -> None:
        self._build_work, self._name, self._count = build_work, name, count
        self._pool: WorkerPool | None = None
        self._epochs = 0

    @contextmanager
    def run_epoch(self) -> Iterator[WorkerPool]:
        """Yield the workers, which are started if need be; they get the code again if it has changed since.

        Raises:
            MLScaleError: they can't be started.
        """
        # A bad sample is replaced by a stream within the stream, for which nothing has changed.
        if not self._epochs:
            # After an error the next epoch starts others.
            before, self._pool = self._pool, None
            self._pool = self._update_workers(before)
        assert self._pool is not None
        self._epochs += 1
        try:
            yield self._pool
        finally:
            self._epochs -= 1

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _update_workers(self, pool: WorkerPool | None) -> WorkerPool:
        payload = self._pickle_work()
        try:
            if pool is None:
                return WorkerPool(self._count, payload)
            # Code with a schedule changes between epochs.
            pool.replace_work(payload)
            return pool
        except WorkerFailure as error:
            raise MLScaleError(
                f"{self._name} can't be read by another process",
                where=f"data.executor; {error.failure.where}",
                why=error.failure.why,
                fix="put its definition into a module that can be imported, not into a notebook\ndata.executor=thread",
            ) from error

    def _pickle_work(self) -> bytes:
        if (script := find_unguarded_script()) is not None:
            raise MLScaleError(
                f"each new process would run {script} again",
                where=str(script),
                why="the script of the main process is imported by each, and it has no if __name__ == '__main__'",
                fix="put what the script does into a function, and call it under if __name__ == '__main__':",
            )
        # By pickle alone: multiprocessing's own would send tensors as files in /dev/shm.
        try:
            return pickle.dumps(self._build_work())
        except Exception as error:
            raise MLScaleError(
                f"{self._name} can't be sent to another process",
                where="data.executor",
                why=f"{type(error).__name__}: {error}",
                fix="define it at the top level of a module: lambdas and functions inside of functions can't be found "
                "by a name\ndata.executor=thread",
            ) from error


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
            fix="data.executor=thread",
        )
    if workers < 1:
        raise MLScaleError(
            "data.executor=process has no processes with data.workers=0", where="data.workers", fix="data.workers=auto"
        )
