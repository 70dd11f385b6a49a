"""Entries on their way to a tracker: sent by a thread, in order; kept on the disk while the tracker fails."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from mlscale.atomic_files import write_text

_MAX_BATCH_ENTRIES = 500  # entries in one batch
_PAUSE_SECONDS = 1.0  # between two rounds: no request for every step
_BACKOFF_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0)
_CLOSE_SECONDS = 45.0  # the longest that the end of a run waits


class EntrySender(Protocol):
    """A client of a tracker."""

    @property
    def where(self) -> str:
        """The tracker's name and address, for messages."""

    def send(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Send entries, all of them or none.

        Raises:
            Exception: the tracker did not accept them; of any class, for it is a library's.
        """


class TrackerOutbox:
    """A thread that sends entries in order. It never raises: training continues without its tracker.

    Args:
        path: of the file for entries that could not be sent; those already in it are sent first.
        client: sends them.
        address: kept with them, so that another process can send them.
        pause_s: seconds between two rounds.
    """

    def __init__(
        self, path: Path, client: EntrySender, address: Mapping[str, Any], pause_s: float = _PAUSE_SECONDS
    ) -> None:
        self._path, self._client, self._address, self._pause = path, client, dict(address), pause_s
        self._waiting: list[dict[str, Any]] = read_outbox(path)[1]
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._closing = self._reported = False
        self._failures = 0
        # A daemon: a server that does not respond must not keep the process alive.
        self._thread = threading.Thread(target=self._send_until_closed, name="mlscale-outbox", daemon=True)
        self._thread.start()

    def add_entry(self, entry: dict[str, Any]) -> None:
        """Add an entry, without waiting."""
        with self._lock:
            self._waiting.append(entry)

    def save_entries(self) -> None:
        """Write the entries that are not sent yet to the disk, in place of those that were written before."""
        with self._lock, contextlib.suppress(OSError):  # a full disk: they wait in memory
            write_outbox(self._path, self._address, self._waiting)

    def close(self, seconds: float = _CLOSE_SECONDS) -> bool:
        """Send the remaining entries, for at most `seconds`; keep and report the rest; return whether all were sent."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)
        self.save_entries()
        if left := len(self._waiting):
            run = self._path.parent.parent.name
            _print_notice(
                f"{self._client.where}: {left:,} entries wait on the disk; to send them: mlscale runs send {run}"
            )
        return not left

    def _send_until_closed(self) -> None:
        while True:
            self._wake.wait(self._pause if not self._failures else _get_backoff(self._failures))
            # Read before sending: entries that were put before the flag was set are in this round.
            closing = self._closing
            sent = self._send_waiting()
            if closing and (sent or self._failures > 1):  # one more try after a failure, then it is reported
                return
            if closing:
                time.sleep(min(self._pause, 1.0))

    def _send_waiting(self) -> bool:
        """Send all waiting entries; returns whether none is left."""
        while batch := self._get_next_batch():
            try:
                self._client.send(batch)
            except Exception as error:
                self._failures += 1
                self._report_failure(error)
                return False
            with self._lock:
                # By count: entries that were put in the meantime are behind these.
                del self._waiting[: len(batch)]
            self._failures = 0
        return True

    def _get_next_batch(self) -> list[dict[str, Any]]:
        with self._lock:
            return self._waiting[:_MAX_BATCH_ENTRIES]

    def _report_failure(self, error: Exception) -> None:
        if not self._reported:
            self._reported = True
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            _print_notice(f"{self._client.where}: not reached, training continues and its entries wait ({reason})")


def read_outbox(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the address and the entries of a file that an outbox has written; empty where the file does not exist."""
    if not path.is_file():
        return {}, []
    lines: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return (lines[0], lines[1:]) if lines else ({}, [])


def write_outbox(path: Path, address: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
    """Write the file of an outbox, whole or not at all; without entries it is removed."""
    if not entries:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(entry) + "\n" for entry in (address, *entries)))


def _get_backoff(failures: int) -> float:
    return _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS)) - 1]


def _print_notice(line: str, out: Callable[..., Any] = tqdm.write) -> None:
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed already
        out(line, file=sys.stderr)
