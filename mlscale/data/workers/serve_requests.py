"""The main function of a worker: it gets a piece of work once, then arrays, and returns what the work makes of them."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection as connections
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray

from mlscale.data.workers.shared_scratch import ArrayPlace, SharedScratch
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
