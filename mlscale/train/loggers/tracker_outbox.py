"""Entries on their way to a tracker: on the disk within a second, sent by a thread, in order."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from mlscale.errors import MLScaleError
from mlscale.outbox import Outbox, OutboxReport, RetryPolicy

_MAX_ITEM_ENTRIES = 500  # entries in one item of the outbox
_MAX_BATCH_ITEMS = 20  # items that are sent together
_PAUSE_SECONDS = 1.0  # between two rounds: no request for every step
_CLOSE_SECONDS = 45.0  # the longest that the end of a run waits
# Without an age: a server may be away for weeks. Entries that it refuses are given up, for those behind them.
_POLICY = RetryPolicy(max_refusals=5)
_FOLDER = "mlflow-outbox"


class EntrySender(Protocol):
    """A client of a tracker."""

    @property
    def where(self) -> str:
        """The tracker's name and address, for messages."""

    def send(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Send entries, all of them or none; those that the tracker has already are not sent again.

        Raises:
            ItemRefusedError: the tracker refuses them, now and later.
            Exception: the tracker did not accept them; of any class, for it is a library's.
        """


class TrackerOutbox:
    """A thread that sends entries in order. It never raises: training continues without its tracker.

    Args:
        logs: the folder of a run's logs; entries that earlier processes left there are sent first.
        client: sends them.
        address: kept with them, so that another process can send them.
        pause_s: seconds between two rounds.
    """

    def __init__(
        self, logs: Path, client: EntrySender, address: Mapping[str, Any], pause_s: float = _PAUSE_SECONDS
    ) -> None:
        self._logs, self._client, self._address, self._pause = logs, client, dict(address), pause_s
        self._outbox = open_tracker_outbox(logs)
        self._waiting: list[Mapping[str, Any]] = []  # not on the disk yet
        self._lock, self._disk_lock, self._wake = threading.Lock(), threading.Lock(), threading.Event()
        self._closing = self._reported = False
        # A daemon: a server that does not respond must not keep the process alive.
        self._thread = threading.Thread(target=self._send_until_closed, name="mlscale-outbox", daemon=True)
        self._thread.start()

    def add_entry(self, entry: dict[str, Any]) -> None:
        """Add an entry, without waiting."""
        with self._lock:
            self._waiting.append(entry)

    def save_entries(self) -> None:
        """Write the entries that are in memory to the disk; on a full one they stay in memory."""
        with self._disk_lock:
            # Taken first: `add_entry` must not wait for the disk.
            with self._lock:
                entries, self._waiting = self._waiting, []
            with contextlib.suppress(MLScaleError):
                while entries:
                    self._outbox.add_item(_build_item(self._address, entries[:_MAX_ITEM_ENTRIES]))
                    del entries[:_MAX_ITEM_ENTRIES]
            self._put_back(entries)

    def close(self, seconds: float = _CLOSE_SECONDS) -> bool:
        """Send the remaining entries, for at most `seconds`; keep and report the rest; return whether all were sent."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)
        self.save_entries()
        left = self._outbox.count_items() + self._outbox.count_failed()
        if left:
            run = self._logs.parent.name
            _print_notice(f"{self._client.where}: entries wait on the disk; to send them: mlscale runs send {run}")
        with contextlib.suppress(MLScaleError):
            self._outbox.remove_if_empty()
        return not left and not self._waiting

    def _send_until_closed(self) -> None:
        wait, last_tries = self._pause, 0
        while True:
            self._wake.wait(wait)
            # Read before sending: entries that were put before the flag was set are in this round.
            closing = self._closing
            report = self._send_round(closing)
            self._report_problems(report)
            last_tries += closing
            if closing and (not report.waiting or last_tries > 1):  # one more try after a failure, then it is reported
                return
            wait = max(self._pause, report.retry_in_s)
            if closing:
                time.sleep(min(self._pause, 1.0))

    def _send_round(self, closing: bool) -> OutboxReport:
        try:
            self.save_entries()
            if self._waiting:  # the disk is full
                self._send_from_memory()
            return self._outbox.send_items(
                self._send_bodies, max_batch=_MAX_BATCH_ITEMS, ignore_backoff=closing, lock_s=self._pause
            )
        except Exception as error:  # of the disk, or of the client: they wait
            return OutboxReport(waiting=1, why=str(error), retry_in_s=self._pause)

    def _send_bodies(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        self._client.send([entry for body in bodies for entry in body["entries"]])

    def _send_from_memory(self) -> None:
        with self._disk_lock:
            with self._lock:
                entries, self._waiting = self._waiting, []
            try:
                self._client.send(entries)
            except Exception:
                self._put_back(entries)
                raise

    def _put_back(self, entries: Sequence[Mapping[str, Any]]) -> None:
        with self._lock:
            self._waiting[:0] = entries

    def _report_problems(self, report: OutboxReport) -> None:
        for line in report.failed:
            _print_notice(f"{self._client.where}: entries are not accepted: {line}")
        if report.waiting and report.why and not self._reported:
            self._reported = True
            _print_notice(
                f"{self._client.where}: not reached, training continues and its entries wait ({report.why[:200]})"
            )


def open_tracker_outbox(logs: Path) -> Outbox:
    """Return the outbox in a run's folder of logs."""
    return Outbox(logs / _FOLDER, _POLICY)


def _build_item(address: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"address": dict(address), "entries": [_encode_metrics(entry) for entry in entries]}


def _encode_metrics(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an entry with texts in place of NaN and infinities, which JSON lacks."""
    if "metrics" not in entry:
        return entry
    values = {name: value if math.isfinite(value) else str(value) for name, value in entry["metrics"].items()}
    return {**entry, "metrics": values}


def _print_notice(line: str, out: Callable[..., Any] = tqdm.write) -> None:
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed already
        out(line, file=sys.stderr)
