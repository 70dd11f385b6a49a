"""Several workers that do the same work; threads borrow them one at a time."""

from __future__ import annotations

import multiprocessing
import queue
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import BaseContext

from mlscale.data.workers.worker_process import WorkerProcess

_PRELOADED = ("mlscale.data.workers.serve_requests", "mlscale.data.images.sample_transform")
_OFTEN_USED = ("torchvision.transforms", "torchvision.transforms.v2", "PIL.Image")
"""Imported by the fork server too, where this process has them: each worker would do it again."""


class WorkerPool:
    """Workers that have their work.

    Args:
        count: how many.
        payload: the pickled work.

    Raises:
        WorkerFailure: it can't be read.
        MLScaleError: a process has ended.
    """

    def __init__(self, count: int, payload: bytes) -> None:
        self._payload, self._workers = payload, list[WorkerProcess]()
        self._idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
        self.close = weakref.finalize(self, _close_workers, self._workers)
        """Ends all workers."""
        context = _choose_context()
        try:
            for _ in range(count):
                self._workers.append(WorkerProcess(context))
            _load_work(self._workers, payload)
        except BaseException:
            self.close()
            raise
        for worker in self._workers:
            self._idle.put(worker)

    @contextmanager
    def borrow_worker(self) -> Iterator[WorkerProcess]:
        """Have a worker for oneself; wait for one if none is idle."""
        worker = self._idle.get()
        try:
            yield worker
        finally:
            self._idle.put(worker)

    def replace_work(self, payload: bytes) -> None:
        """Send other work to every worker, unless it is the same; waits for what is being done."""
        if payload == self._payload:
            return
        # All of them, so that no part of an epoch is made by the code of the epoch before.
        borrowed = [self._idle.get() for _ in self._workers]
        try:
            _load_work(borrowed, payload)
            self._payload = payload
        finally:
            for worker in borrowed:
                self._idle.put(worker)


def _choose_context() -> BaseContext:
    # Not fork: this process has threads, and a lock that one of them holds would stay locked in the copy for ever.
    context = multiprocessing.get_context("forkserver")
    # Without effect if the server runs already; a run of several ranks has started it with more than this.
    context.set_forkserver_preload([*_PRELOADED, *(name for name in _OFTEN_USED if name in sys.modules)])
    return context


def _load_work(workers: Sequence[WorkerProcess], payload: bytes) -> None:
    # To all before any has replied: work may import much, and they do so side by side.
    for worker in workers:
        worker.send_work(payload)
    for worker in workers:
        worker.confirm_work()


def _close_workers(workers: list[WorkerProcess]) -> None:
    # By this list, and not by the pool, which is gone when its finalizer runs.
    while workers:
        workers.pop().close()
