"""Transfers that fail are repeated: what will not pass, how long to wait, and what is counted.

`Store` is the interface of servers of remote shards.
"""

from __future__ import annotations

import random
import shlex
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mlscale.data.remote.addresses import BlockedAddressError, build_blocked_error, mask_address
from mlscale.data.shards.system_files import report_once
from mlscale.errors import Exit, MLScaleError
from mlscale.report.text import format_count, format_decimal_size

T = TypeVar("T")

_REPORTED_ATTEMPT = 3
"""The failure in a row that is reported at once: who waits wants to know for what."""
# Request timeout, too many requests, and every error of the server's own.
_PASSING_STATUS = frozenset({408, 425, 429, *range(500, 600)})


class StatusError(OSError):
    """A server's refusal, by its HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"HTTP status {status} {reason}".rstrip())
        self.status = status


class WrongBytesError(OSError):
    """A transfer whose bytes are not those that were asked for."""


class ChangedShardError(OSError):
    """A shard that is another one than when its size was asked for."""


@dataclass(frozen=True)
class RetryLimits:
    """Limits of the attempts of a transfer.

    Args:
        attempts: in a row without progress, before the error is reported.
        first_wait: seconds before the second attempt; doubled each time, and varied by up to a half.
        longest_wait: seconds, at most.
        stall_seconds: a connection that gives nothing for so long is given up.
    """

    attempts: int = 8
    first_wait: float = 0.5
    longest_wait: float = 20.0
    stall_seconds: float = 30.0

    def wait_before(self, attempt: int) -> None:
        """Sleep before an attempt, counted from 1."""
        wait = min(self.longest_wait, self.first_wait * 2.0 ** (attempt - 1))
        # Varied, so that the ranks of a cluster do not all come back in the same moment.
        time.sleep(wait * random.uniform(0.75, 1.25))  # noqa: S311 - no secret


class TransferCounts:
    """Counts of transfers of this process, and of what failed on the way; for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: Counter[str] = Counter()
        self.total: Counter[str] = Counter()

    def count_failure(self) -> None:
        """Add one transfer that failed, and was, or will be, repeated."""
        self._add(failures=1)

    def count_shard(self, size: int) -> None:
        """Add one shard that was downloaded."""
        self._add(shards=1, bytes=size)

    def take_line(self) -> str | None:
        """Return one line on what failed since the last call; None where nothing did."""
        with self._lock:
            recent, self._recent = self._recent, Counter()
        if not recent["failures"]:
            return None
        downloaded = f"{format_count(recent['shards'], 'shard')}, {format_decimal_size(recent['bytes'])}"
        return f"remote    {format_count(recent['failures'], 'transfer')} failed and repeated; downloaded: {downloaded}"

    def _add(self, **counts: int) -> None:
        with self._lock:
            self._recent.update(counts)
            self.total.update(counts)


class Attempts:
    """The attempts of one transfer.

    Args:
        address: of what is read.
        policy: how many, and the waits between them.
        counts: where failures are counted.
        where: the key path, for errors.
    """

    def __init__(self, address: str, policy: RetryLimits, counts: TransferCounts, where: str) -> None:
        self._address, self._policy, self._counts, self._where = address, policy, counts, where
        self._failures = self._in_row = 0

    def record_progress(self) -> None:
        """Forget the failures in a row: something was read."""
        self._in_row = 0

    def record_failure(self, error: Exception) -> None:
        """Count a failure and wait before the next attempt.

        Raises:
            MLScaleError: it will not pass, or attempts are used up.
        """
        if not may_pass(error):
            raise self._build_error(error) from error
        self._counts.count_failure()
        self._failures += 1
        self._in_row += 1
        if self._in_row >= self._policy.attempts:
            raise self._build_error(error) from error
        if self._in_row == _REPORTED_ATTEMPT:
            report_once(f"remote    {mask_address(self._address)}: {describe_error(error)}; it is tried again")
        self._policy.wait_before(self._in_row)

    def call(self, action: Callable[[], T]) -> T:
        """Return the result of an action, which is repeated while it fails in a way that may pass."""
        while True:
            try:
                return action()
            except MLScaleError:
                raise
            except Exception as error:
                self.record_failure(error)

    def _build_error(self, error: Exception) -> MLScaleError:
        shown = mask_address(self._address)
        if is_blocked(error):
            return build_blocked_error(self._address, self._where)
        if isinstance(error, FileNotFoundError):
            return MLScaleError(
                f"{shown!r} does not exist",
                where=self._where,
                why="the server does not know it",
                fix=f"{self._where}=<an address that exists>",
            )
        if isinstance(error, ChangedShardError):
            return MLScaleError(
                f"the shard {shown!r} was changed while it was used",
                where=self._where,
                why=str(error),
                fix="start again, and let nothing change a shard while a run reads it",
            )
        what, fix = "cannot be read", "see whether another program reads this address, with the same environment"
        if isinstance(error, PermissionError):
            what, fix = "may not be read", "give the credentials by the environment (docs/remote.md), or sign it again"
        elif isinstance(error, StatusError):
            fix = f"curl -sLr 0-0 -o /dev/null -D - {shlex.quote(shown)}   shows what the server sends"
        return MLScaleError(
            f"{shown!r} {what}",
            where=self._where,
            why=describe_error(error) + f", the last of {self._failures} failures" * (self._failures > 1),
            fix=f"{fix}; the same command continues each shard where its download ended",
            exit=Exit.ENVIRONMENT,
        )


def may_pass(error: BaseException) -> bool:
    """Return False for a failure that would come again at once."""
    if isinstance(error, StatusError):
        return error.status in _PASSING_STATUS
    # By name: these are of packages that are imported on use. A name server may also be busy.
    if {kind.__name__ for kind in type(error).__mro__} & {"gaierror", "ClientConnectorDNSError", "NoCredentialsError"}:
        return getattr(error, "errno", None) == socket.EAI_AGAIN
    # Invalid addresses and certificates are ValueErrors.
    final = ChangedShardError | FileNotFoundError | PermissionError | ValueError | TypeError
    return not (is_blocked(error) or isinstance(error, final))


def is_blocked(error: BaseException) -> bool:
    """Return True if a connection was not opened because it led to a metadata service."""
    seen: BaseException | None = error
    while seen is not None:
        # Of several numbers of a host one error is made, whose text holds those of all.
        if isinstance(seen, BlockedAddressError) or BlockedAddressError.__name__ in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def describe_error(error: BaseException) -> str:
    """Return an error's text without the query and password of addresses in it."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return " ".join(_mask_word(word) for word in text.split(" "))


def _mask_word(word: str) -> str:
    at = word.find("://")
    if at < 0:
        return word
    # The address may stand in quotes or brackets.
    start = max(word.rfind(mark, 0, at) for mark in "'\"(<[ =") + 1
    end = min((i for i in (word.find(mark, at) for mark in "'\")>]") if i >= 0), default=len(word))
    return word[:start] + mask_address(word[start:end]) + word[end:]


Sink = Callable[[int, bytes], None]
"""Takes bytes as they come, with their offset in the shard. It is called by another thread, so it must not wait."""


@dataclass(frozen=True)
class RemoteStat:
    """Size and state of a file, as its server states them.

    Args:
        size: bytes.
        etag: changes with the content: an ETag, else the time of the last change; None where the server has neither.
        md5: of the content, hexadecimal; None where it is not known.
        is_md5_certain: it is one; an ETag of S3 only looks like one where the bucket is encrypted.
        has_ranges: a part of the file can be read.
    """

    size: int
    etag: str | None
    md5: str | None = None
    is_md5_certain: bool = False
    has_ranges: bool = True


class Store(Protocol):
    """A kind of server. Every method may raise whatever the network does; none repeats anything."""

    compares_state: bool
    """Each transfer is compared with the state of the file; else callers have to, once they have read it."""

    def read_stat(self, address: str) -> RemoteStat:
        """Return size and state of a file."""

    def stream_span(self, address: str, start: int, stop: int, stat: RemoteStat, sink: Sink) -> None:
        """Give the bytes from `start` to before `stop` to `sink`, in order; of a server without ranges all bytes."""

    def list_files(self, pattern: str) -> dict[str, RemoteStat] | None:
        """Return the files that a glob matches or a folder holds, by address; None where nothing can be listed."""
