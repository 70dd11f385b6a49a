"""Play a node of a platform on this machine: processes with a host name and an environment of their own."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mlscale.runs.host.marked_processes import kill_marked_processes, signal_marked_processes

_MARK = "MLSCALE_DRILL_NODE"  # marks all processes of a node, also those that have left its session


@dataclass
class PlayedNode:
    """The processes that a platform has started on one node.

    Attributes:
        host: the host name that they see.
        log: the file with what they print.
        processes: one for each command.
        mark: the value that marks their environment.
    """

    host: str
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    mark: str = field(default_factory=lambda: secrets.token_hex(8))

    def start_commands(self, commands: Sequence[Sequence[str]], environments: Sequence[Mapping[str, str]]) -> None:
        """Start one process for each command, each with the environment of the same place."""
        for words, environment in zip(commands, environments, strict=True):
            with self.log.open("ab") as out:
                self.processes.append(
                    subprocess.Popen(
                        [*build_host_prefix(self.host), *words],
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        env={**environment, _MARK: self.mark},
                        start_new_session=True,
                    )
                )

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the processes that the platform has started, as it does: not to their children."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process of the node."""
        signal_marked_processes(_MARK, self.mark, number)

    def get_exit_code(self) -> int | None:
        """Return the exit code once all have ended, the first one that is not 0; None while any of them runs."""
        codes = [process.poll() for process in self.processes]
        if any(code is None for code in codes):
            return None
        return next((code for code in codes if code), 0)

    def kill_all(self) -> None:
        """Kill every process of the node, and wait until none is left."""
        kill_marked_processes(_MARK, self.mark, self.processes)

    def read_log(self) -> str:
        """Return what the processes have printed."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


@contextlib.contextmanager
def play_node(host: str, log: Path) -> Iterator[PlayedNode]:
    """Yield a node without processes; those that are started on it are killed at the end of the block."""
    node = PlayedNode(host, log)
    try:
        yield node
    finally:
        if node.processes:
            node.kill_all()


def build_host_prefix(host: str) -> list[str]:
    """Return the words before a command that give it a host name; none where the system does not allow it."""
    unshare = _find_unshare()
    return [*unshare, "sh", "-c", 'hostname "$0" && exec "$@"', host] if unshare else []


def can_change_host() -> bool:
    """Return True if processes can be given another host name here."""
    return bool(_find_unshare())


@cache
def _find_unshare() -> tuple[str, ...]:
    """Return the command for a namespace of host names, as root or in a user namespace; empty where neither works."""
    if shutil.which("unshare") is None or shutil.which("hostname") is None:
        return ()
    for words in (("unshare", "--uts"), ("unshare", "--user", "--map-root-user", "--uts")):
        tried = subprocess.run([*words, "hostname", "node-0"], capture_output=True, check=False)
        if tried.returncode == 0:
            return words
    return ()
