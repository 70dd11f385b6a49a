"""Transfers that fail are repeated: what may pass, how long to wait, and what is counted."""

from __future__ import annotations

import errno
import random
import shlex
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from mlscale.data.remote.addresses import BlockedAddressError, build_blocked_error, mask_address
from mlscale.data.shards.system_files import report_once
from mlscale.errors import Exit, MLScaleError
from mlscale.report.text import format_count, format_decimal_size

T = TypeVar("T")

DROPPED, STALLED, WRONG, SERVER = "dropped", "stalled", "wrong", "server"
_NAMES = {
    DROPPED: ("connection dropped", "connections dropped"),
    STALLED: ("connection stalled", "connections stalled"),
    WRONG: ("transfer with wrong bytes", "transfers with wrong bytes"),
    SERVER: ("error of the server", "errors of the server"),
}
_BUSY_NUMBERS = frozenset({errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT})
# Of aiohttp, botocore and azure-core, by name: they are imported on use.
_DROPPED_NAMES = frozenset(
    {
        *("ClientConnectionError", "ClientPayloadError", "ConnectionError", "HTTPClientError", "IncompleteReadError"),
        *("ServiceRequestError", "ServiceResponseError", "IncompleteRead", "EOFError"),
    }
)
# Of botocore and gcsfs, which compare transfers with a checksum that the store states.
_CHECKSUM_NAMES = frozenset({"ChecksumError", "FlexibleChecksumError"})
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
        self._failures: Counter[str] = Counter()
        self._shards = self._bytes = 0
        self.total: Counter[str] = Counter()

    def count_failure(self, kind: str) -> None:
        """Add one to a kind of failure that was, or will be, repeated."""
        with self._lock:
            self._failures[kind] += 1
            self.total[kind] += 1

    def count_shard(self, size: int) -> None:
        """Add one shard that was downloaded."""
        with self._lock:
            self._shards += 1
            self._bytes += size
            self.total["shards"] += 1

    def take_line(self) -> str | None:
        """Return one line on what failed since the last call; None where nothing did."""
        with self._lock:
            failures, shards, size = dict(self._failures), self._shards, self._bytes
            self._failures.clear()
            self._shards = self._bytes = 0
        if not failures:
            return None
        downloaded = f"{format_count(shards, 'shard')}, {format_decimal_size(size)}"
        return f"remote    {format_failures(failures)}, repeated; downloaded: {downloaded}"


def format_failures(failures: Mapping[str, int]) -> str:
    """Return '2 connections dropped, 1 connection stalled'."""
    return ", ".join(f"{count} {_NAMES[kind][count != 1]}" for kind, count in failures.items())


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
        self._failures: Counter[str] = Counter()
        self._in_row = 0

    def record_progress(self) -> None:
        """Forget the failures in a row: something was read."""
        self._in_row = 0

    def record_failure(self, error: Exception) -> None:
        """Count a failure and wait before the next attempt.

        Raises:
            MLScaleError: it will not pass, or attempts are used up.
        """
        kind = classify_failure(error)
        if kind is None:
            raise self._build_final_error(error) from error
        self._counts.count_failure(kind)
        self._failures[kind] += 1
        self._in_row += 1
        if self._in_row >= self._policy.attempts:
            raise self._build_exhausted_error(error) from error
        if self._in_row == _REPORTED_ATTEMPT:
            shown = mask_address(self._address)
            report_once(f"remote    {shown}: {format_failures(self._failures)} in a row; it is tried again")
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

    def _build_exhausted_error(self, error: Exception) -> MLScaleError:
        return MLScaleError(
            f"{mask_address(self._address)!r} cannot be read",
            where=self._where,
            why=f"{format_failures(self._failures)} in {sum(self._failures.values())} attempts, "
            f"the last: {describe_error(error)}",
            fix="see whether the server answers; the same command continues each shard where its download ended",
            exit=Exit.ENVIRONMENT,
        )

    def _build_final_error(self, error: Exception) -> MLScaleError:
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
        if isinstance(error, PermissionError):
            return MLScaleError(
                f"{shown!r} may not be read",
                where=self._where,
                why=describe_error(error),
                fix="give the credentials by the environment (docs/remote.md), or sign the address again",
                exit=Exit.ENVIRONMENT,
            )
        return MLScaleError(
            f"{shown!r} cannot be read",
            where=self._where,
            why=describe_error(error),
            fix=f"curl -sLr 0-0 -o /dev/null -D - {shlex.quote(shown)}   shows what the server sends"
            if isinstance(error, StatusError)
            else "see whether another program reads this address, with the same environment",
            exit=Exit.ENVIRONMENT,
        )


def classify_failure(error: BaseException) -> str | None:
    """Return the kind of a failure that may pass; None for one that would come again."""
    if is_blocked(error) or isinstance(error, ChangedShardError | FileNotFoundError | PermissionError):
        return None
    if isinstance(error, StatusError):
        return SERVER if error.status in _PASSING_STATUS else None
    names = {kind.__name__ for kind in type(error).__mro__}
    # By name: these are of packages that are imported on use.
    if isinstance(error, WrongBytesError) or names & _CHECKSUM_NAMES:
        return WRONG
    if isinstance(error, TimeoutError) or names & {"FSTimeoutError", "ReadTimeoutError", "ConnectTimeoutError"}:
        return STALLED
    if "ClientConnectorDNSError" in names:
        # A name server that is busy is another thing than a name that does not exist.
        return DROPPED if getattr(error, "errno", None) == socket.EAI_AGAIN else None
    if names & {"InvalidURL", "ClientConnectorCertificateError", "NoCredentialsError"}:
        return None
    if isinstance(error, ConnectionError) or names & _DROPPED_NAMES:
        return DROPPED
    status = _find_status(error)
    return SERVER if status in _PASSING_STATUS or getattr(error, "errno", None) in _BUSY_NUMBERS else None


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


def _find_status(error: BaseException) -> int | None:
    """Return the HTTP status that an error of a package for object stores, or its cause, has."""
    for one in (error, error.__cause__):
        # Of botocore, and of gcsfs and azure-core.
        response = getattr(one, "response", None)
        stated = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        stated = stated or getattr(one, "code", None) or getattr(one, "status_code", None)
        if isinstance(stated, int | str) and str(stated).isdigit():
            return int(stated)
    return None
