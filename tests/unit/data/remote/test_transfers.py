"""Failures of transfers: which may pass, how often they are repeated, and what is printed of them."""

from __future__ import annotations

import errno
import socket
import time

import aiohttp
import pytest
from fsspec.exceptions import FSTimeoutError

from mlscale.data.remote.addresses import BlockedAddressError
from mlscale.data.remote.transfers import (
    DROPPED,
    SERVER,
    STALLED,
    WRONG,
    Attempts,
    ChangedShardError,
    RetryLimits,
    StatusError,
    TransferCounts,
    WrongBytesError,
    classify_failure,
    describe_error,
)
from mlscale.errors import MLScaleError
from tests.unit.data.remote.conftest import QUICK


class _StoreError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("a code of an object store")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError(), DROPPED),
        (aiohttp.ClientPayloadError(), DROPPED),
        (aiohttp.ServerDisconnectedError(), DROPPED),
        (FSTimeoutError(), STALLED),
        (aiohttp.SocketTimeoutError(), STALLED),
        (WrongBytesError("x"), WRONG),
        (StatusError(503, ""), SERVER),
        (StatusError(429, ""), SERVER),
        (StatusError(400, ""), None),
        (caused(OSError(errno.EIO, "slow down"), _StoreError(503)), SERVER),
        (caused(OSError(errno.EIO, "a wrong region"), _StoreError(400)), None),
        (FileNotFoundError(), None),
        (PermissionError(), None),
        (ChangedShardError("x"), None),
        (BlockedAddressError("x"), None),
        (caused(ConnectionResetError(), BlockedAddressError("x")), None),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), None),
        (ValueError(), None),
    ],
)
def test_kinds_of_failures(error: Exception, kind: str | None) -> None:
    assert classify_failure(error) == kind


def test_names_that_can_not_be_resolved() -> None:
    key = aiohttp.client_reqrep.ConnectionKey("h", 80, False, True, None, None, None)
    for number, kind in ((socket.EAI_AGAIN, DROPPED), (socket.EAI_NONAME, None)):
        error = aiohttp.ClientConnectorDNSError(key, socket.gaierror(number, "x"))
        assert classify_failure(error) == kind


def test_an_action_is_repeated_until_it_passes(capfd: pytest.CaptureFixture[str]) -> None:
    counts, failures = TransferCounts(), [StatusError(503, ""), ConnectionResetError(), FSTimeoutError()]

    def act() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert Attempts("https://u:hunter22@h/repeated.tar", QUICK, counts, "data.train").call(act) == "done"
    counts.count_shard(2_000_000_000)
    assert counts.take_line() == (
        "remote    1 connection stalled, 1 connection dropped, 1 error of the server, repeated; "
        "downloaded: 1 shard, 2.0 GB"
    )
    assert counts.take_line() is None
    assert dict(counts.total) == {STALLED: 1, DROPPED: 1, SERVER: 1, "shards": 1}
    # What is waited for is reported, without the password.
    err = capfd.readouterr().err
    assert "https://h/repeated.tar: 1 connection stalled, 1 connection dropped, 1 error of the server in a row" in err


def test_progress_gives_new_attempts() -> None:
    attempts = Attempts("https://h/0.tar", QUICK, TransferCounts(), "data.train")
    for _ in range(3 * QUICK.attempts):
        attempts.record_failure(ConnectionResetError())
        attempts.record_progress()
    for _ in range(QUICK.attempts - 1):
        attempts.record_failure(ConnectionResetError())
    with pytest.raises(MLScaleError, match="cannot be read") as caught:
        attempts.record_failure(ConnectionResetError())
    assert "24 connections dropped in 24 attempts" in caught.value.why


def test_waits_double_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    limits = RetryLimits(first_wait=1.0, longest_wait=5.0)
    for attempt in range(1, 6):
        limits.wait_before(attempt)
    for wait, middle in zip(waits, (1, 2, 4, 5, 5), strict=True):
        assert 0.75 * middle <= wait <= 1.25 * middle


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (FileNotFoundError(), "does not exist"),
        (PermissionError("HTTP status 403"), "may not be read"),
        (ChangedShardError("it had 3 bytes"), "was changed while it was used"),
        (BlockedAddressError("x"), "metadata service"),
        (ValueError("x"), "cannot be read"),
    ],
)
def test_what_will_not_pass_is_an_error_at_once(error: Exception, what: str) -> None:
    counts = TransferCounts()
    with pytest.raises(MLScaleError, match=what) as caught:
        Attempts("https://u:hunter22@h/0.tar?sig=abcdef", QUICK, counts, "data.val").record_failure(error)
    assert caught.value.where == "data.val"
    assert caught.value.fix
    assert "hunter22" not in str(caught.value)
    assert "abcdef" not in str(caught.value)
    assert not counts.total


def test_addresses_in_errors_of_libraries_are_masked() -> None:
    error = OSError("no route to 'https://u:hunter22@h/0.tar?sig=abcdef' (https://h/x?sig=ghijkl)")
    assert describe_error(error) == "no route to 'https://h/0.tar?***' (https://h/x?***)"
    assert describe_error(TimeoutError()) == "TimeoutError"
