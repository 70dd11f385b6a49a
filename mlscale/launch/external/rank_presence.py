"""Notice within seconds that a rank has died while the ranks of another launcher join.

Until the process group exists, a rank that was killed leaves no trace: two torchruns do not watch each other, and the
other ranks would wait for `launch.timeout_s`. So each rank keeps a connection to rank 0 from before it imports torch.
The system closes it with the process, however that ends. Nothing depends on it: where it can't be made, as a port is in
use or blocked, the ranks wait as long as they would without it.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.external.external_launcher import ExternalRank
from mlscale.launch.external.rank_meeting import find_meeting_address

# Below the ports that systems give to outgoing connections, as those of meetings.
_FIRST_PORT, _PORTS = 15000, 15000
_CONNECT_SECONDS, _POLL_SECONDS = 5.0, 0.2
# A rank that has not joined may be started again, and joins then. torchrun's agent takes 3 s to do so, and Python 3 s.
_PATIENCE_SECONDS, _RESTART_SECONDS = 3.0, 30.0
_IN_KUBERNETES = "KUBERNETES_SERVICE_HOST"  # which it sets in every container
_LINE_BYTES = 64  # at most: another program may send what never ends
_FAREWELL = b"bye\n"  # a connection that ends without it belonged to a process that has died


class Presence:
    """The ranks that have died since the start, as this rank sees it: rank 0 sees all, the others see rank 0."""

    def __init__(self, external: ExternalRank) -> None:
        self.external = external
        self._connections: dict[socket.socket, int] = {}
        self._ended: dict[int, float] = {}
        self._joined: set[int] = set()
        self._is_closed = threading.Event()
        self._patience_s = _choose_patience(external.environment)

    def mark_joined(self, rank: int) -> None:
        """Count on this process of a rank: another one in its place could not take part any more."""
        self._joined.add(rank)

    def find_lost(self) -> list[int]:
        """Return the ranks that have died and can't come back."""
        if self._is_closed.is_set():
            return []
        now, present = time.monotonic(), set(self._connections.values())
        return sorted(
            rank
            for rank, ended in list(self._ended.items())
            if rank in self._joined or (rank not in present and now - ended > self._patience_s)
        )

    def raise_if_lost(self) -> None:
        """Raise an error if a rank has died.

        Raises:
            MLScaleError: it names the rank (exit code 5).
        """
        if lost := self.find_lost():
            raise MLScaleError(
                f"rank{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))} ended while the ranks joined",
                where=self.external.describe_variables(),
                why="the connection is closed: an error that its own output shows, or killed (Linux sends SIGKILL when "
                "memory runs out), or the machine or its network is gone",
                fix="start the job again, once you have looked at the launcher's output",
                exit=Exit.ENVIRONMENT,
            )

    def call_watched(self, call: Callable[[], object]) -> None:
        """Call a function of torch that would wait for a dead rank in vain.

        Raises:
            MLScaleError: a rank has died meanwhile; the call continues in its thread, which ends with the process.
        """
        failures: list[Exception] = []

        def run_call() -> None:
            try:
                call()
            except Exception as error:  # whatever it is, the caller gets it
                failures.append(error)

        thread = threading.Thread(target=run_call, name="mlscale-join", daemon=True)
        thread.start()
        while thread.is_alive():
            self.raise_if_lost()
            thread.join(_POLL_SECONDS)
        if failures:
            raise failures[0]

    def close(self, farewell: bytes = _FAREWELL) -> None:
        """End the watch: with a farewell the end of this process is not the end of a start any more."""
        self._is_closed.set()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.sendall(farewell)
                connection.shutdown(socket.SHUT_RDWR)

    def accept_ranks(self, listener: socket.socket) -> None:
        """Attend to every other rank, as rank 0."""
        listener.settimeout(_POLL_SECONDS)
        with listener:
            while not self._is_closed.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    # A thread for each: ranks are as many as a file system and a store can serve.
                    threading.Thread(target=self._welcome_rank, args=(connection,), daemon=True).start()

    def call_first_rank(self, address: tuple[str, int]) -> None:
        """Attend to rank 0, as another rank, also when it is started later, or again."""
        while not self._is_closed.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection(address, _CONNECT_SECONDS) as connection,
                connection.makefile("rb") as reader,
            ):
                if reader.readline(_LINE_BYTES) == _build_token(self.external):
                    connection.sendall(b"%d\n" % self.external.rank)
                    self._attend_to(0, connection, reader)
            self._is_closed.wait(_POLL_SECONDS)

    def _welcome_rank(self, connection: socket.socket) -> None:
        connection.settimeout(_CONNECT_SECONDS)
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
            connection.sendall(_build_token(self.external))
            number = reader.readline(_LINE_BYTES)
            # Else it is another program.
            if number.strip().isdigit() and 0 < int(number) < self.external.world_size:
                self._attend_to(int(number), connection, reader)

    def _attend_to(self, rank: int, connection: socket.socket, reader: BinaryIO) -> None:
        """Wait for the end of a connection, which may be the end of a process."""
        _probe_when_idle(connection)
        connection.settimeout(None)
        self._connections[connection] = rank
        if rank not in self._joined:  # started again: it can still join
            self._ended.pop(rank, None)
        farewell = b""
        with contextlib.suppress(OSError):
            farewell = reader.readline(_LINE_BYTES)
        if farewell == _FAREWELL:
            self._ended.pop(rank, None)
        else:
            self._ended[rank] = time.monotonic()
        del self._connections[connection]


@contextlib.contextmanager
def watch_presence(external: ExternalRank, stop: type[BaseException]) -> Iterator[Presence]:
    """Watch which ranks die, until the block ends or closes it. The others take a rank whose block fails for dead, but
    not one that was stopped by its launcher, which may start it again by itself.

    Args:
        external: the place of this process.
        stop: what is raised where the launcher stops it.
    """
    presence = Presence(external)
    if external.world_size > 1:
        _start_watch(presence)
    try:
        yield presence
    except stop:
        presence.close()
        raise
    except BaseException:
        presence.close(farewell=b"")
        raise
    presence.close()


def _choose_patience(environment: Mapping[str, str]) -> float:
    """Return for how many seconds a rank that has died before it joined may be started again."""
    if _IN_KUBERNETES in environment:
        # Another pod takes the place of one that was evicted; until launch.timeout_s, as its image may be large.
        return math.inf
    names = ("TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RESTART_COUNT")
    limit, restarts = (environment.get(name, "0") for name in names)
    return _PATIENCE_SECONDS if limit == restarts else _RESTART_SECONDS


def _start_watch(presence: Presence) -> None:
    host, meeting = find_meeting_address(presence.external)
    port = _FIRST_PORT + zlib.crc32(f"presence/{meeting}".encode()) % _PORTS
    if presence.external.rank:
        watch = threading.Thread(target=presence.call_first_rank, args=((host, port),))
    elif listener := _open_listener(port):
        watch = threading.Thread(target=presence.accept_ranks, args=(listener,))
    else:
        return
    watch.name, watch.daemon = "mlscale-presence", True
    watch.start()


def _open_listener(port: int) -> socket.socket | None:
    # Rank 0 does not know to which of its addresses the others resolve its name.
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError:  # in use
        return None


def _build_token(external: ExternalRank) -> bytes:
    """Return a line that other jobs and other programs at this port don't send."""
    names = ("MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID", external.launcher.size)
    job = "/".join(external.environment.get(name, "") for name in names)
    return f"mlscale {zlib.crc32(job.encode())}\n".encode()


def _probe_when_idle(connection: socket.socket) -> None:
    """Let the system find out that a machine is gone: that closes no connection by itself."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Linux: after 30 s. Elsewhere the system's own setting, mostly of hours, stays.
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
