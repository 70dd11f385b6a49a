"""Failures of transfers: which may pass, how often they are repeated, and what is printed of them."""

from __future__ import annotations

import socket
import time

import aiohttp
import pytest
from fsspec.exceptions import FSTimeoutError

from mlscale.data.remote.addresses import BlockedAddressError
from mlscale.data.remote.transfers import (
    Attempts,
    ChangedShardError,
    RetryLimits,
    StatusError,
    TransferCounts,
    WrongBytesError,
    describe_error,
    may_pass,
)
from mlscale.errors import MLScaleError
from tests.unit.data.remote.conftest import QUICK


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ConnectionResetError(), True),
        (aiohttp.ClientPayloadError(), True),
        (FSTimeoutError(), True),
        (WrongBytesError("x"), True),
        (OSError("whatever a package raises"), True),
        (StatusError(503, ""), True),
        (StatusError(429, ""), True),
        (StatusError(400, ""), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (ChangedShardError("x"), False),
        (BlockedAddressError("x"), False),
        (caused(ConnectionResetError(), BlockedAddressError("x")), False),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), False),
        (ValueError(), False),
    ],
)
def test_what_may_pass(error: Exception, passes: bool) -> None:
    assert may_pass(error) is passes


def test_names_that_can_not_be_resolved() -> None:
    key = aiohttp.client_reqrep.ConnectionKey("h", 80, False, True, None, None, None)
    for number, passes in ((socket.EAI_AGAIN, True), (socket.EAI_NONAME, False)):
        assert may_pass(aiohttp.ClientConnectorDNSError(key, socket.gaierror(number, "x"))) is passes


def test_an_action_is_repeated_until_it_passes(capfd: pytest.CaptureFixture[str]) -> None:
    counts, failures = TransferCounts(), [StatusError(503, ""), ConnectionResetError(), FSTimeoutError()]

    def act() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert Attempts("https://u:hunter22@h/repeated.tar", QUICK, counts, "data.train").call(act) == "done"
    counts.count_shard(2_000_000_000)
    assert counts.take_line() == "remote    3 transfers failed and repeated; downloaded: 1 shard, 2.0 GB"
    assert counts.take_line() is None
    assert dict(counts.total) == {"failures": 3, "shards": 1, "bytes": 2_000_000_000}
    # What is waited for is reported, without the password.
    err = capfd.readouterr().err
    assert "https://h/repeated.tar: HTTP status 503; it is tried again" in err


def test_progress_gives_new_attempts() -> None:
    attempts = Attempts("https://h/0.tar", QUICK, TransferCounts(), "data.train")
    for _ in range(3 * QUICK.attempts):
        attempts.record_failure(ConnectionResetError())
        attempts.record_progress()
    for _ in range(QUICK.attempts - 1):
        attempts.record_failure(ConnectionResetError())
    with pytest.raises(MLScaleError, match="cannot be read") as caught:
        attempts.record_failure(ConnectionResetError())
    assert "ConnectionResetError, the last of 24 failures" in caught.value.why


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
