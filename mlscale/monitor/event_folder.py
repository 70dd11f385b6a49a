"""The folder that events are read from: a wrong one is an error, and a watch waits for one that is still to be made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from mlscale.errors import MLScaleError
from mlscale.monitor.watch import ShutdownRequest

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
