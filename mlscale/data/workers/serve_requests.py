"""The main function of a worker: it gets a piece of work once, then arrays, and returns what the work makes of them.

The arrays of requests and replies are in memory that it shares with the process that has started it.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection as connections
from multiprocessing import parent_process, reduction
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.runs.host.processes import STOP_SIGNALS, unblock_stop_signals

Mark = Callable[[int], None]
"""Called with the number of each row before it is made."""


class Work(Protocol):
    """A function that workers call; it is pickled to them."""

    def __call__(self, arrays: Sequence[NDArray[Any]], request: Any, mark: Mark) -> tuple[list[NDArray[Any]], Any]:
        """Return arrays and anything else, made of arrays, which are only valid during the call, and a request."""


class WorkRequest(NamedTuple):
    """One call of the work: the places of its arrays, and the rest."""

    places: list[ArrayPlace]
    rest: Any


class Reply(NamedTuple):
    """The result of a request: the places of its arrays, and the rest."""

    places: list[ArrayPlace]
    rest: Any


class Failure(NamedTuple):
    """An exception of the work.

    Args:
        error: itself, where it can be pickled; else None.
        why: its type and message.
        where: the line of the user's code, or of what it calls, that failed.
        traceback: all lines.
    """

    error: Exception | None
    why: str
    where: str
    traceback: str


def serve_requests(connection: Connection, scratch: SharedScratch) -> None:
    """Work until the connection is closed or the process that started this one has ended."""
    _forget_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # As the transform in the training process has: sums over several threads may round differently.
    torch.set_num_threads(1)
    work: Work | None = None
    while True:
        try:
            message = receive_message(connection)
        except (EOFError, OSError):
            return
        try:
            # Code comes before the first request, and again whenever it has changed.
            if isinstance(message, bytes):
                work = pickle.loads(message)  # noqa: S301  of the process that has started this one
                send_message(connection, Reply([], None))
                continue
            assert work is not None
            arrays, rest = work(scratch.view_arrays(message.places), message.rest, scratch.mark_row)
            send_message(connection, Reply(scratch.write_arrays(arrays), rest))
        except BrokenPipeError:
            return
        # Of a user's code, so of any class: the training process raises it with the name of the sample.
        except Exception as error:
            send_message(connection, describe_failure(error))


def send_message(connection: Connection, message: object) -> None:
    """Send an object.

    By pickle and not by `Connection.send`, which sends tensors as files that outlive a killed process.
    """
    connection.send_bytes(pickle.dumps(message))


def receive_message(connection: Connection) -> Any:
    """Return the next object; raise EOFError or OSError if the other process has closed the connection or ended."""
    return pickle.loads(connection.recv_bytes())  # noqa: S301  between a process and one that it has started


def describe_failure(error: Exception) -> Failure:
    """Return an exception in a form that another process can read."""
    # The innermost frame: the line of the user's code, or of what it calls, that failed.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  some exceptions can be written, but not read
        sent: Exception | None = error
    # Classes of a user's raise what they like when they are pickled; the text of the error is sent anyhow.
    except Exception:
        sent = None
    return Failure(
        sent,
        f"{type(error).__name__}: {error}".removesuffix(": "),  # a MemoryError has no text
        f"{frame.filename}:{frame.lineno}",
        "".join(traceback.format_exception(error)),
    )


def _forget_signals() -> None:
    """Ignore stop signals, which reach the whole process group: the training process saves with what workers make, and
    ends them.
    """
    for number in (*STOP_SIGNALS, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    unblock_stop_signals()


def _end_with_parent() -> None:
    # A killed parent closes nothing while a sample is being made, which may take for ever.
    parent = parent_process()
    if parent is not None:
        connections.wait([parent.sentinel])
        os._exit(1)


_HEADER_BYTES = 64
"""At the start: the row that is being made, so that a worker that is killed leaves the name of its sample."""
_ALIGNMENT = 64
_MIN_BYTES = 1 << 20


class ArrayPlace(NamedTuple):
    """An array in the memory.

    Args:
        shape: of the array.
        dtype: its type, as numpy writes it.
        offset: bytes before it.
    """

    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def end(self) -> int:
        """The number of bytes up to its end."""
        return self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize


class SharedScratch:
    """Memory of two processes that take turns: one writes arrays, the other reads them where they are.

    It is a file without a name, so that nothing of it is left once both have ended, even if they were killed.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = _create_memory_file() if descriptor is None else descriptor
        self._memory = self._map_memory(_MIN_BYTES)

    def __reduce__(self) -> tuple[Any, ...]:
        # Only while a process is started: the descriptor goes with the request for it.
        return _attach_scratch, (reduction.DupFd(self._descriptor),)

    @property
    def row(self) -> int:
        """The row that the worker makes; -1 for none."""
        return int(np.frombuffer(self._memory, np.int64, 1)[0])

    def mark_row(self, row: int) -> None:
        """Set the row that is being made."""
        np.frombuffer(self._memory, np.int64, 1)[0] = row

    def place_arrays(self, kinds: Sequence[tuple[tuple[int, ...], str]]) -> list[ArrayPlace]:
        """Return places for arrays of these shapes and types; what was in the memory before is overwritten."""
        # Aligned, since numpy and torch are slower on arrays that begin anywhere.
        places, offset = [], _HEADER_BYTES
        for shape, dtype in kinds:
            places.append(ArrayPlace(shape, dtype, offset))
            offset = -(-places[-1].end // _ALIGNMENT) * _ALIGNMENT
        return places

    def view_arrays(self, places: Sequence[ArrayPlace]) -> list[NDArray[Any]]:
        """Return the arrays at these places; a view each, valid until the next request or reply."""
        end = max((array.end for array in places), default=0)
        if end > len(self._memory):
            self._memory = self._map_memory(end)
        return [
            np.frombuffer(self._memory, array.dtype, math.prod(array.shape), array.offset).reshape(array.shape)
            for array in places
        ]

    def write_arrays(self, arrays: Sequence[NDArray[Any]]) -> list[ArrayPlace]:
        """Copy arrays into the memory and return their places."""
        places = self.place_arrays([(array.shape, array.dtype.str) for array in arrays])
        for view, array in zip(self.view_arrays(places), arrays, strict=True):
            np.copyto(view, array)
        return places

    def close(self) -> None:
        """Close the file; arrays that are still in use keep their memory."""
        # Only once: the number may have been given to another file since.
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _map_memory(self, size: int) -> mmap.mmap:
        # Both sides grow the file and neither shrinks it: the other one may have mapped all of it.
        size = -(-max(size, _MIN_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE
        if os.fstat(self._descriptor).st_size < size:
            os.ftruncate(self._descriptor, size)
        return mmap.mmap(self._descriptor, size)


def _create_memory_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("mlscale-samples")
    # macOS has no files in memory; this one is unlinked as soon as it is open.
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _attach_scratch(descriptor: Any) -> SharedScratch:
    return SharedScratch(descriptor.detach())
