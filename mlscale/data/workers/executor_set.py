"""The executors of a backend: checked before training, closed after it."""

from __future__ import annotations

from weakref import WeakSet

from mlscale.data.workers.sample_executor import SampleExecutor
from mlscale.errors import MLScaleError


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
