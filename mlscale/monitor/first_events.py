"""A watch that is started before its server: it waits for the folder that the first event makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mlscale.errors import MLScaleError
from mlscale.monitor.event_folder import AbsentEventFolderError
from mlscale.monitor.watch import ShutdownRequest

_Checked = TypeVar("_Checked")


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
                report(describe_absence(error))
            is_reported = True
        if stop.wait_for_request(seconds):
            return None


def describe_absence(error: MLScaleError) -> str:
    """Return the line of a watch that waits, with the full path: it may be mistyped."""
    return f"waiting for events: {error.where} does not exist; a server makes it with its first event"
