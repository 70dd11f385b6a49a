"""A rank that dies while the ranks join is noticed by its connection: at once, or after the time of a restart."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.early_stop import EarlyStop
from mlscale.launch.external import first_rank, rank_presence
from mlscale.launch.external.external_launcher import ExternalRank, find_external_rank
from mlscale.launch.external.first_rank import FirstRank
from mlscale.launch.external.other_rank import OtherRank
from mlscale.launch.external.rank_meeting import find_meeting_address
from mlscale.launch.external.rank_presence import Presence, watch_presence

SECONDS = 60.0  # far above what a busy machine takes, far below launch.timeout_s
# Without torch, as before a rank imports it.
STAY = """
import sys, time
from mlscale.launch.external.external_launcher import find_external_rank
from mlscale.launch.external.rank_presence import watch_presence
with watch_presence(find_external_rank(), KeyboardInterrupt):
    print("watching", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank that ended is lost after half a second, and not after three."""
    monkeypatch.setattr(rank_presence, "_PATIENCE_SECONDS", 0.5)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def list_variables(number: int, port: int, **more: str) -> dict[str, str]:
    return {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **more}


def rank_of(number: int, port: int, **more: str) -> ExternalRank:
    found = find_external_rank(list_variables(number, port, **more))
    assert found is not None
    return found


@contextlib.contextmanager
def start_rank(number: int, port: int) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", STAY],
        env={**os.environ, **list_variables(number, port)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "watching\n"
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_connected(presence: Presence) -> bool:
    return bool(presence._connections)


@pytest.mark.parametrize("whom", [0, 1])
def test_a_killed_rank_is_lost(port: int, whom: int) -> None:
    with start_rank(whom, port) as process, watch_presence(rank_of(1 - whom, port), EarlyStop) as presence:
        wait_for(lambda: is_connected(presence))
        assert presence.find_lost() == []
        process.kill()
        wait_for(presence.find_lost)
        with pytest.raises(MLScaleError, match=f"^rank {whom} ended while the ranks joined") as caught:
            presence.raise_if_lost()
        assert caught.value.exit == Exit.ENVIRONMENT


def test_a_rank_that_waits_for_a_killed_one_ends(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_rank, "_FAREWELL_SECONDS", 0.2)
    with start_rank(1, port) as process, watch_presence(rank_of(0, port), EarlyStop) as presence:
        first = FirstRank(rank_of(0, port), 600, presence)
        wait_for(lambda: is_connected(presence))
        process.kill()
        with pytest.raises(MLScaleError, match="rank 1 ended while the ranks joined"):
            first.gather_members()


def test_a_rank_that_waits_for_a_killed_first_one_ends(port: int) -> None:
    store = {"TORCHELASTIC_USE_AGENT_STORE": "True"}  # it outlives rank 0, as torchrun's agent does
    serving = FirstRank(rank_of(0, port), 600)
    with start_rank(0, port) as process, watch_presence(rank_of(1, port), EarlyStop) as presence:
        other = OtherRank(rank_of(1, port, **store), 600, presence)
        wait_for(lambda: is_connected(presence))
        process.kill()
        with pytest.raises(MLScaleError, match="rank 0 ended while the ranks joined"):
            other.wait_for_plan()
    assert not serving.members


@pytest.mark.slow
def test_an_agent_that_is_gone_is_not_waited_for(port: int) -> None:
    with pytest.raises(MLScaleError, match=f"rank 1 did not reach 127.0.0.1:{port}"):
        OtherRank(rank_of(1, port, TORCHELASTIC_USE_AGENT_STORE="True"), 600)


def test_a_rank_that_is_started_again_can_join(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_presence, "_PATIENCE_SECONDS", 0.5)
    with watch_presence(rank_of(0, port), EarlyStop) as presence:
        with start_rank(1, port):
            wait_for(lambda: is_connected(presence))
        with start_rank(1, port) as second:
            wait_for(lambda: is_connected(presence) and not presence._ended)
            time.sleep(0.6)
            assert presence.find_lost() == []
            presence.mark_joined(1)
            second.kill()
            wait_for(presence.find_lost)
        with start_rank(1, port):  # one that has joined can't be replaced
            wait_for(lambda: is_connected(presence))
            assert presence.find_lost() == [1]


def test_the_restarts_that_are_left_are_waited_for(port: int) -> None:
    left, used = {"TORCHELASTIC_MAX_RESTARTS": "2"}, {"TORCHELASTIC_RESTART_COUNT": "2"}
    assert Presence(rank_of(0, port, **left))._patience_s > Presence(rank_of(0, port, **left, **used))._patience_s


def test_a_pod_that_was_evicted_is_replaced_by_another(port: int) -> None:
    with watch_presence(rank_of(0, port, KUBERNETES_SERVICE_HOST="10.0.0.1"), EarlyStop) as presence:
        for joined in ((), (1,)):
            with start_rank(1, port):
                wait_for(lambda: is_connected(presence))
            wait_for(lambda: not is_connected(presence))
            presence._ended[1] -= 3600
            presence._joined.update(joined)
            # It may come for as long as launch.timeout_s, unless the one that has died had joined.
            assert presence.find_lost() == [*joined]


@pytest.mark.parametrize("stop", [None, EarlyStop(15)])
def test_a_rank_that_ends_properly_or_is_stopped_is_not_lost(port: int, stop: EarlyStop | None) -> None:
    with watch_presence(rank_of(0, port), EarlyStop) as presence:
        presence.mark_joined(1)
        with contextlib.suppress(EarlyStop), watch_presence(rank_of(1, port), EarlyStop) as other:
            wait_for(lambda: is_connected(presence) and is_connected(other))
            if stop:
                raise stop
        wait_for(lambda: not is_connected(presence))
        assert presence.find_lost() == []


def test_a_rank_whose_start_fails_is_lost(port: int) -> None:
    with watch_presence(rank_of(0, port), EarlyStop) as presence:
        presence.mark_joined(1)
        with contextlib.suppress(ImportError), watch_presence(rank_of(1, port), EarlyStop) as other:
            wait_for(lambda: is_connected(presence) and is_connected(other))
            raise ImportError
        wait_for(presence.find_lost)


def test_other_programs_and_jobs_at_the_port_are_not_ranks(port: int) -> None:
    job = rank_of(1, port, TORCHELASTIC_RUN_ID="another")
    with watch_presence(rank_of(0, port), EarlyStop) as presence, watch_presence(job, EarlyStop) as other:
        time.sleep(1)
        assert not is_connected(presence)
        assert not is_connected(other)


def test_what_never_ends_its_line_is_not_a_rank(port: int) -> None:
    with watch_presence(rank_of(0, port), EarlyStop) as presence:
        at = 15000 + zlib.crc32(f"presence/{find_meeting_address(rank_of(0, port))[1]}".encode()) % 15000
        with socket.create_connection(("127.0.0.1", at), 10) as other:
            other.settimeout(SECONDS)
            assert other.recv(64).startswith(b"mlscale")
            with contextlib.suppress(OSError):
                other.sendall(b"1" * 100_000)
                # It hangs up, and keeps none of it.
                while other.recv(64):
                    pass
        assert not is_connected(presence)


def test_a_port_in_use_leaves_the_ranks_unwatched(port: int) -> None:
    with watch_presence(rank_of(0, port), EarlyStop), watch_presence(rank_of(0, port), EarlyStop) as second:
        assert second.find_lost() == []


def test_a_call_ends_with_the_rank_that_it_waits_for(port: int) -> None:
    forever = threading.Event()
    with start_rank(1, port) as process, watch_presence(rank_of(0, port), EarlyStop) as presence:
        wait_for(lambda: is_connected(presence))
        presence.mark_joined(1)
        process.kill()
        with pytest.raises(MLScaleError, match="rank 1 ended"):
            presence.call_watched(forever.wait)
    forever.set()


def test_a_call_raises_its_own_error(port: int) -> None:
    def fail() -> None:
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        Presence(rank_of(0, port)).call_watched(fail)
