"""Play a node on this machine: processes that are started, signalled and killed together, in whatever session."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mlscale.runs.host.processes import kill_marked_processes, signal_marked_processes

_MARK = "MLSCALE_DRILL_NODE"  # marks all processes of a node, also those that have left its session
_LAST_LINES = 12
# torch's log of its launcher, its traceback, and srun's lines about tasks.
_LAUNCHER_LINE = re.compile(r"[EWI]\d{4} |Traceback |srun: |slurmstepd: |job       ")


@dataclass
class PlayedNode:
    """The processes that a platform has started on one node.

    Attributes:
        host: the host name that they see; '' for that of this machine.
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
        # The group first, which needs no `/proc`; torchrun's ranks have left it.
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        kill_marked_processes(_MARK, self.mark)

    def read_log(self, offset: int = 0) -> str:
        """Return what the processes have printed, from a byte on."""
        return read_from(self.log, offset)


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
    unshare = _find_unshare() if host else ()
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


def read_from(log: Path, offset: int) -> str:
    """Return the text of a file from a byte on; empty where the file does not exist."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def extract_error_text(text: str) -> str:
    """Return the last error that a command has printed, or its last lines."""
    lines = text.strip().splitlines()
    errors = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    if not errors:
        return "\n".join(lines[-_LAST_LINES:])
    # Without the lines that a launcher adds about the processes that have failed.
    rest = itertools.takewhile(lambda line: not _LAUNCHER_LINE.match(line), lines[errors[-1] + 1 :])
    return "\n".join([lines[errors[-1]].removeprefix("error: "), *rest])
