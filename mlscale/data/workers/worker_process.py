"""Worker processes, as the process that has started them sees them; threads borrow them one at a time."""

from __future__ import annotations

import multiprocessing
import queue
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection as connections
from multiprocessing.context import BaseContext
from typing import Any

from numpy.typing import NDArray

from mlscale.data.workers.serve_requests import (
    ArrayPlace,
    Failure,
    Reply,
    SharedScratch,
    WorkRequest,
    receive_message,
    send_message,
    serve_requests,
)
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.host.processes import block_stop_signals

_EXIT_SECONDS = 2.0
"""The time that a worker has to end by itself, and the system to report the end of one that was killed."""
_HUNG_SECONDS = 60.0
"""The time at one sample after which it is named: it may have no end, and nothing else shows what is waited for."""
_HUNG_LOOKS = 12
"""Looks in that time: a sample is named by so much of it too late, at most."""
Name = Callable[[int], str]
"""Returns the name of the sample in a row of a request."""


class WorkerFailure(Exception):  # noqa: N818  an exception of another process
    """The traceback of a worker, as the cause of an error here."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"\n{failure.traceback}")
        self.failure = failure


class WorkerProcess:
    """A process that answers one request after another.

    Args:
        context: starts it; not by fork, which copies locks that a thread holds.

    Attributes:
        scratch: the memory that both share.
    """

    def __init__(self, context: BaseContext) -> None:
        self.scratch = SharedScratch()
        self._connection, other = context.Pipe()
        process: Any = context.Process  # type: ignore[attr-defined]  # a subclass's attribute
        # Daemonic: multiprocessing ends it at the interpreter's exit, if nothing has before.
        self._process = process(
            target=serve_requests, args=(other, self.scratch), daemon=True, name="mlscale-transform"
        )
        with block_stop_signals():  # until it ignores them; so does the fork server, if this starts it
            self._process.start()
        # Else the connection would stay open here when the worker has ended.
        other.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._process.pid)

    def send_work(self, payload: bytes) -> None:
        """Send the pickled work; `confirm_work` is called next."""
        # One that has ended already is found when it does not confirm.
        with suppress(OSError):
            send_message(self._connection, payload)

    def confirm_work(self) -> None:
        """Wait until the work has been read.

        Raises:
            WorkerFailure: it can't be.
            MLScaleError: the process has ended.
        """
        self._receive_reply(lambda row: "")

    def call_work(self, places: Sequence[ArrayPlace], rest: Any, name_row: Name) -> tuple[list[NDArray[Any]], Any]:
        """Do the work on arrays that are in `scratch`; the result is there too, and valid until the next call.

        Raises:
            WorkerFailure: the work has failed.
            MLScaleError: the process has ended.
        """
        # A worker that dies before its first row was killed by no sample.
        self.scratch.mark_row(-1)
        # One that has ended is found when it does not reply.
        with suppress(OSError):
            send_message(self._connection, WorkRequest(list(places), rest))
        reply = self._receive_reply(name_row)
        return self.scratch.view_arrays(reply.places), reply.rest

    def close(self) -> None:
        """End the process; it is killed if it does not end by itself."""
        # The worker reads the end of the connection, and returns.
        self._connection.close()
        self._process.join(_EXIT_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.scratch.close()

    def _receive_reply(self, name_row: Name) -> Reply:
        try:
            self._wait_for_reply(name_row)
            reply = receive_message(self._connection) if self._connection.poll() else None
        except (EOFError, OSError):
            reply = None
        if reply is None:
            raise self._build_death_error(name_row)
        if isinstance(reply, Failure):
            raise WorkerFailure(reply)
        assert isinstance(reply, Reply)
        return reply

    def _wait_for_reply(self, name_row: Name) -> None:
        row, named, since = -1, -1, time.monotonic()
        # The sentinel too: what a killed worker had sent before is still in the connection.
        while not connections.wait([self._connection, self._process.sentinel], _HUNG_SECONDS / _HUNG_LOOKS):
            if self.scratch.row != row:
                row, since = self.scratch.row, time.monotonic()
            elif row != named and time.monotonic() - since >= _HUNG_SECONDS:
                text = f"samples   a process has been at the sample {name_row(row)} for {_HUNG_SECONDS:g} s or longer"
                print(f"{text} (data.executor): it is waited for", file=sys.stderr, flush=True)
                named = row

    def _build_death_error(self, name_row: Name) -> MLScaleError:
        # The connection breaks a little before the system reports how the process has ended.
        self._process.join(_EXIT_SECONDS)
        code, row = self._process.exitcode, self.scratch.row
        how = f"with exit code {code}" if code is None or code >= 0 else f"by {signal.Signals(-code).name}"
        killed = code == -signal.SIGKILL
        return MLScaleError(
            f"a process that prepares samples has ended {how}"
            + (f" at the sample {name_row(row)}" if row >= 0 else ""),
            where="data.executor",
            why="the system kills a process when memory runs out (dmesg has a line of it), or someone did"
            if killed
            else "the code that it ran ended it: a crash in a library, or a call of exit",
            fix="data.workers=1, which needs the least memory; or data.executor=thread, which has one process alone",
            exit=Exit.ENVIRONMENT if killed else Exit.USER,
        )


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
