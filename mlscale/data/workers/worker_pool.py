"""Several workers that do the same work; threads borrow them one at a time."""

from __future__ import annotations

import multiprocessing
import queue
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import BaseContext

from mlscale.data.workers.worker_process import WorkerProcess

_PRELOADED = ("mlscale.data.workers.serve_requests", "mlscale.data.images.sample_transform")
_OFTEN_USED = ("torchvision.transforms", "torchvision.transforms.v2", "PIL.Image")
"""Imported by the fork server too, where this process has them: each worker would do it again."""


class WorkerPool:
    """Workers that are started in the background: what needs them may be done elsewhere until they are ready.

    Args:
        count: how many.
        payload: the pickled work.

    Attributes:
        error: why they could not be started; None if they were, or will be.
    """

    def __init__(self, count: int, payload: bytes) -> None:
        self.error: Exception | None = None
        self._count, self._payload = count, payload
        self._workers: list[WorkerProcess] = []
        self._idle: queue.SimpleQueue[WorkerProcess] = queue.SimpleQueue()
        self._started, self._is_closed, self._lock = threading.Event(), False, threading.Lock()
        # Not daemonic: at the interpreter's exit a process that is just being started would be left behind.
        threading.Thread(target=self._start_workers, name="mlscale-start-workers").start()
        self._close = weakref.finalize(self, _close_workers, self._workers)

    @property
    def is_ready(self) -> bool:
        """True once every worker has its work."""
        return self._started.is_set() and self.error is None

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def wait_until_ready(self) -> None:
        """Wait for the workers.

        Raises:
            Exception: why they could not be started.
        """
        self._started.wait()
        if self.error is not None:
            raise self.error

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
        self.wait_until_ready()
        if payload == self._payload:
            return
        # All of them, so that no part of an epoch is made by the code of the epoch before.
        borrowed = [self._idle.get() for _ in range(self._count)]
        try:
            _load_work(borrowed, payload)
            self._payload = payload
        finally:
            for worker in borrowed:
                self._idle.put(worker)

    def close(self) -> None:
        """End all workers; those that are just being started end once they have."""
        with self._lock:
            self._is_closed = True
            if self._started.is_set():
                self._close()

    def _start_workers(self) -> None:
        try:
            context = _choose_context()
            for _ in range(self._count):
                self._workers.append(WorkerProcess(context))
            _load_work(self._workers, self._payload)
            for worker in self._workers:
                self._idle.put(worker)
        except Exception as error:
            self.error = error
            _close_workers(self._workers)
        with self._lock:
            self._started.set()
            if self._is_closed:
                _close_workers(self._workers)


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
