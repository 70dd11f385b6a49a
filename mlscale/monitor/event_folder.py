"""The folder that events are read from: a wrong one is an error, and a watch waits for one that is still to be made.

The graceful shutdown of `watch=true`: a wait that signals end at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from mlscale.events.store import EventStore

_Checked = TypeVar("_Checked")


class AbsentEventFolderError(MLScaleError):
    """The folder does not exist: it is mistyped, or its server has not written an event yet."""


def check_event_folder(store: EventStore) -> None:
    """Raise an error if a folder can't be one that servers write events to.

    Raises:
        AbsentEventFolderError: it does not exist.
        MLScaleError: it is a file, or holds something else.
    """
    root = store.root
    # An earlier look at a service without events has left its state there.
    if root.is_dir() and (store.list_models() or any(root.glob("*/monitor")) or not any(root.iterdir())):
        return
    kind = MLScaleError if root.exists() else AbsentEventFolderError
    raise kind(
        f"{root.name} holds no events" if root.exists() else f"no folder {root.name}",
        where=str(root.absolute()),
        why="events are in <folder>/<model>/events/<day>/*.parquet",
        fix="events=<the folder that mlscale serve events=… writes to>; a server makes it with its first event",
    )


def wait_for_first_check(
    check: Callable[[], _Checked], stop: ShutdownRequest, seconds: float, report: Callable[[str], None]
) -> _Checked | None:
    """Return the result of the first check that finds a folder of events; None if a signal ends the wait before it.

    Args:
        check: what is tried again.
        stop: the request to end.
        seconds: from one try to the next, s.
        report: is called once with a line, if there is something to wait for.

    Raises:
        MLScaleError: the check fails for another reason: what is wrong with the command is wrong now.
    """
    is_reported = False
    while True:
        try:
            return check()
        except AbsentEventFolderError as error:
            if not is_reported:
                # With the full path: it may be mistyped.
                report(f"waiting for events: {error.where} does not exist; a server makes it with its first event")
            is_reported = True
        if stop.wait_for_request(seconds):
            return None


class ShutdownRequest:
    """Turns SIGTERM and SIGINT into a request to end, inside the block. The handler only writes to a pipe.

    Outside the main thread, where Python does not allow signal handlers, `request_shutdown` is the only way to end.
    """

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        # A handler must never block: with a full pipe it would.
        os.set_blocking(self._write, False)
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._read)
        os.close(self._write)

    def wait_for_request(self, seconds: float) -> bool:
        """Wait for so many seconds; return True as soon as an end was requested."""
        # The byte is never read: all later waits end at once, too.
        ready, _, _ = select.select([self._read], [], [], seconds)
        return bool(ready)

    def request_shutdown(self) -> None:
        """Request the end, from any thread."""
        with contextlib.suppress(BlockingIOError):  # a full pipe has the request already
            os.write(self._write, b"x")

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        self.request_shutdown()
