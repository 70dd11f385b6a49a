"""The graceful shutdown of `watch=true`: a wait that signals end at once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from types import FrameType
from typing import Any, Self


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
