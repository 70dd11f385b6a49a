"""The items for one recipient: added behind all others, sent oldest first, and tried again.

One item of an outbox, and its file.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlscale.atomic_files import PRIVATE_FILE, create_write_error, make_folders, read_json, write_json
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.file_locks import wait_for_lock
from mlscale.secrets.mask import Masker

_WHY_LENGTH = 300  # characters of a reason


@dataclass(frozen=True)
class OutboxReport:
    """The result of sending.

    Attributes:
        sent: the number of items that arrived.
        waiting: the number of items that did not, without those that failed for good.
        why: the reason, if some wait or have failed.
        failed: a line for each item that was given up or can't be read now.
        retry_in_s: seconds until the next attempt is due.
    """

    sent: int = 0
    waiting: int = 0
    why: str = ""
    failed: tuple[str, ...] = ()
    retry_in_s: float = 0.0


class Outbox:
    """The items for one recipient.

    Args:
        folder: made for the first item; `remove_if_empty` removes it.
        policy: of retries.
    """

    def __init__(self, folder: Path, policy: RetryPolicy | None = None) -> None:
        self.folder, self._policy = folder, policy or RetryPolicy()
        self._files = ItemFolder(folder)

    def add_item(self, body: Mapping[str, Any], key: str | None = None) -> None:
        """Add an item behind all others; it is on the disk when this returns.

        Args:
            body: the document to send.
            key: an item of the same key that still waits is this one: nothing is added.

        Raises:
            MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
        """
        make_folders(self.folder)
        names = [path.name for path in self._files.list_waiting()]
        end = f"-{hashlib.sha256(key.encode()).hexdigest()[:16] if key else secrets.token_hex(8)}{SUFFIX}"
        if any(name.endswith(end) for name in names):
            return
        # Of those that were given up as well: they may wait again, before this one.
        names += [path.name for path in self._files.list_failed()]
        number = max((int(name.partition("-")[0]) for name in names), default=0) + 1
        # Two processes may take the same number: their ends differ, and the order between them does not matter.
        write_item(OutboxItem(body, created=time.time(), path=self.folder / f"{number:010d}{end}"))

    def count_items(self) -> int:
        """Return the number of items that wait."""
        return len(self._files.list_waiting())

    def count_failed(self) -> int:
        """Return the number of items that were given up or can't be read."""
        return len(self._files.list_failed())

    def get_delay(self) -> float:
        """Return the seconds until the first item that was not refused may be tried again; 0 without one."""
        for path in self._files.list_waiting():
            with contextlib.suppress(MLScaleError):
                item = read_item(path)
                if not item.refusals:
                    return self._policy.get_delay(item, time.time())
        return 0.0

    def send_items(
        self,
        send: Callable[[Sequence[Mapping[str, Any]]], None],
        *,
        max_batch: int = 1,
        seconds: float = math.inf,
        ignore_backoff: bool = False,
        lock_s: float = 0.0,
    ) -> OutboxReport:
        """Send the items that wait, oldest first, until one fails.

        Args:
            send: sends documents, all or none. It raises `ItemRefusedError` for those that a retry does not help, any
                other exception where the recipient is away; what is sent twice must do no harm.
            max_batch: the most documents of one call.
            seconds: no call begins later.
            ignore_backoff: True tries an item that has failed a moment ago: a user asks for it.
            lock_s: seconds to wait for another process that sends.
        """
        if not self._files.list_waiting():  # the usual case: no lock, no folder
            return OutboxReport()
        end = time.monotonic() + seconds
        with self._files.hold_lock(lock_s) as is_held:
            if not is_held:
                return OutboxReport(waiting=self.count_items(), why="another process is sending", retry_in_s=1.0)
            return self._send_queue(send, max_batch, end, ignore_backoff)

    def restore_failed(self) -> int:
        """Let all items that were given up wait again, and return their number; those that can't be read stay."""
        restored = 0
        for path in self._files.list_failed():
            with contextlib.suppress(MLScaleError):
                item = read_item(path)
                # Its own number: it is older than all that waits.
                write_item(OutboxItem(item.body, item.created, path=self.folder / path.name))
                path.unlink(missing_ok=True)
                restored += 1
        return restored

    def remove_if_empty(self) -> None:
        """Remove the folder if nothing is in it."""
        if self.folder.is_dir() and not self.count_items():
            self._files.remove()

    def _send_queue(
        self, send: Callable[[Sequence[Mapping[str, Any]]], None], max_batch: int, end: float, ignore_backoff: bool
    ) -> OutboxReport:
        queue, failed = self._files.read_items()
        sent, alone, why, retry_in = 0, 0, "", 0.0
        while queue and time.monotonic() < end:
            delay = 0.0 if ignore_backoff else self._policy.get_delay(queue[0], time.time())
            if delay and queue[0].refusals:  # refused items hold up none behind them
                why, alone = queue.pop(0).why, max(0, alone - 1)
                continue
            if delay:
                why, retry_in = queue[0].why, delay
                break
            # After a failure one by one, to find the item that is refused.
            size = 1 if alone or queue[0].attempts else max_batch
            batch, queue = queue[:size], queue[size:]
            alone = max(0, alone - 1)
            try:
                send([item.body for item in batch])
            except ItemRefusedError as error:
                why = _shorten(error)
                if len(batch) > 1:
                    queue, alone = [*batch, *queue], len(batch)
                else:
                    failed += self._record_attempt(batch[0], why, is_refused=True)
            except Exception as error:  # of any class: it is a client library's
                why = _shorten(error)
                failed += self._record_attempt(batch[0], why, is_refused=False)
                retry_in = self.get_delay()
                break
            else:
                for item in batch:
                    item.path.unlink(missing_ok=True)
                sent += len(batch)
        waiting = self.count_items()
        return OutboxReport(sent, waiting, why or ("out of time" if queue else ""), tuple(failed), retry_in)

    def _record_attempt(self, item: OutboxItem, why: str, *, is_refused: bool) -> list[str]:
        """Write the failure of an item; return a line if it is given up."""
        now = time.time()
        tried = replace(item, attempts=item.attempts + 1, refusals=item.refusals + is_refused, tried=now, why=why)
        with contextlib.suppress(MLScaleError):  # a full disk: the attempt is not counted, and the item is not lost
            write_item(tried)
        return [self._files.set_aside(item.path, f"given up: {why}")] if self._policy.gives_up(tried, now) else []


def _shorten(error: Exception) -> str:
    # Of a client library: its text may quote a password of an address, and it is written to the disk.
    return Masker.create_for_process().mask_text(" ".join(str(error).split()))[:_WHY_LENGTH] or type(error).__name__


SUFFIX = ".json"
_LOCK = ".lock"
_FAILED = "failed"


class ItemFolder:
    """The files of one outbox.

    Args:
        path: of the folder, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def list_waiting(self) -> list[Path]:
        """Return the files of the items that wait, in order."""
        return _list_json_files(self.path)

    def list_failed(self) -> list[Path]:
        """Return the files of the items that were given up or can't be read, in order."""
        return _list_json_files(self.path / _FAILED)

    def read_items(self) -> tuple[list[OutboxItem], list[str]]:
        """Return the items that wait, and a line for each that can't be read, which is set aside."""
        items, failed = [], []
        for path in self.list_waiting():
            try:
                items.append(read_item(path))
            except MLScaleError as error:
                # Gone since it was listed is not corrupt.
                if path.exists():
                    failed.append(self.set_aside(path, f"can't be read: {error.why or error.what}"))
        return items, failed

    def set_aside(self, path: Path, why: str) -> str:
        """Move the file of an item to those that failed, and return the line that reports it."""
        target = self.path / _FAILED / path.name
        with contextlib.suppress(MLScaleError, OSError):
            make_folders(target.parent)
            path.rename(target)
        return f"{target}: {why}"

    @contextlib.contextmanager
    def hold_lock(self, seconds: float) -> Iterator[bool]:
        """Hold the folder's lock inside the block, or yield False if another process has it for that long."""
        path = self.path / _LOCK
        while True:
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
            except OSError as error:
                raise create_write_error(path, error) from error
            try:
                is_held = True
                with contextlib.suppress(OSError):  # a file system without locks: an item may be sent twice
                    is_held = wait_for_lock(handle, seconds)
                # `remove` may have removed the file that was opened: then the lock on it protects nothing.
                if is_held and not _is_same_file(handle, path):
                    continue
                yield is_held
                return
            finally:
                os.close(handle)

    def remove(self) -> None:
        """Remove the folder if nothing but the lock is in it, and nothing is being sent."""
        with self.hold_lock(0.0) as is_held, contextlib.suppress(OSError):
            if is_held and not {path.name for path in self.path.iterdir()} - {_LOCK}:
                (self.path / _LOCK).unlink(missing_ok=True)
                self.path.rmdir()


def _is_same_file(handle: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _list_json_files(folder: Path) -> list[Path]:
    """Return the files of items, in order; nothing that is still being written, whose name begins with a dot."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.name[:1].isdigit())
    return []


@dataclass(frozen=True)
class OutboxItem:
    """One item, as its file holds it.

    Attributes:
        body: the document to send.
        created, tried: when it was added, and the last attempt, seconds since 1970.
        attempts: all that failed.
        refusals: those of them that the recipient refused.
        why: the reason of the last one.
    """

    body: Mapping[str, Any]
    created: float
    tried: float = 0.0
    attempts: int = 0
    refusals: int = 0
    why: str = ""
    path: Path = field(default=Path(), compare=False)


def read_item(path: Path) -> OutboxItem:
    """Return the item of a file.

    Raises:
        MLScaleError: the file is gone, or is not that of an item.
    """
    document = read_json(path)
    expect_format("outbox_item", document, str(path))
    try:
        times = float(document["created"]), float(document["tried"])
        counts = int(document["attempts"]), int(document["refusals"])
        return OutboxItem(dict(document["body"]), *times, *counts, why=str(document["why"]), path=path)
    except (KeyError, TypeError, ValueError) as error:
        raise MLScaleError(
            f"can't read {path.name}", where=str(path), why=repr(error), fix=f"rm {shlex.quote(str(path))}"
        ) from error


def write_item(item: OutboxItem) -> None:
    """Write an item to its path."""
    document = {name: value for name, value in asdict(item).items() if name != "path"}
    write_json(item.path, {"format": get_format_tag("outbox_item"), **document})


class ItemRefusedError(Exception):
    """The recipient refuses an item for good, so the items behind it need not wait; raised by what sends."""


@dataclass(frozen=True)
class RetryPolicy:
    """When an item is tried again, and when it is given up.

    Attributes:
        backoff_s: seconds after the first failure, the second one, …; the last value for all later ones. Empty: none.
        max_refusals: attempts of an item that the recipient refuses; None for no limit. An absent recipient refuses
            nothing.
        max_age_s: seconds after which an item that has failed is given up; None for no limit.
    """

    backoff_s: Sequence[float] = (1.0, 2.0, 5.0, 15.0, 30.0)
    max_refusals: int | None = None
    max_age_s: float | None = None

    def get_delay(self, item: OutboxItem, now: float) -> float:
        """Return the seconds until an item may be tried again."""
        # An attempt in the future was made when the clock was ahead: nothing would ever be due again.
        if not item.attempts or not self.backoff_s or item.tried > now:
            return 0.0
        pause = self.backoff_s[min(item.attempts, len(self.backoff_s)) - 1]
        return max(0.0, item.tried + pause - now)

    def gives_up(self, item: OutboxItem, now: float) -> bool:
        """Return True if an item that has failed is not tried again."""
        refused = self.max_refusals is not None and item.refusals >= self.max_refusals
        return refused or (self.max_age_s is not None and now - item.created >= self.max_age_s)
