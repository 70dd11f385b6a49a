"""Find and kill the processes of a run's attempt, which are known by a variable of their environment.

A process group is not enough: torchrun's ranks and a fork server's are in sessions of their own, and SLURM's tasks are
children of its daemons.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ATTEMPT = "BENCH_ATTEMPT"
"""The variable that names an attempt."""
# A shell that starts two launchers stands for two machines; the other programs belong to SLURM.
_UNINVOLVED = (b"bash", b"sh", b"srun", b"slurmstepd", b"scontrol")


@dataclass(frozen=True)
class AttemptProcess:
    """A process of an attempt.

    Attributes:
        pid: its id.
        words: its command line.
    """

    pid: int
    words: tuple[bytes, ...]

    @property
    def is_task(self) -> bool:
        """True for a rank that a job script of SLURM has started."""
        return self.words[1:4] == (b"-m", b"mlscale", b"train")


def find_processes(attempt: str, *, all_kinds: bool = False) -> list[AttemptProcess]:
    """Return the processes of an attempt that take part in the training or start those that do; or all."""
    entry = f"{ATTEMPT}={attempt}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if entry not in path.joinpath("environ").read_bytes().split(b"\0"):
                continue
            words = tuple(path.joinpath("cmdline").read_bytes().split(b"\0"))
        except OSError:
            continue  # it has ended meanwhile
        # Python's tracker of resources only tidies up: a run does not end with it.
        is_tracker = any(b"resource_tracker" in word for word in words)
        is_involved = words[0].rpartition(b"/")[2] not in _UNINVOLVED and not is_tracker
        if words[0] and (is_involved or all_kinds):
            found.append(AttemptProcess(int(path.name), words))
    return found


def kill_attempt(environment: Mapping[str, str], *, alone: bool = False) -> None:
    """Kill this process, and unless `alone` all others of its attempt before it; of a job on SLURM all of its tasks, as
    its script is what starts it again.
    """
    attempt = environment.get(ATTEMPT, "")
    others = [] if alone or not attempt else find_processes(attempt)
    in_job = "SLURM_JOB_ID" in environment
    kill_processes([each.pid for each in others if (each.is_task or not in_job) and each.pid != os.getpid()])
    os.kill(os.getpid(), signal.SIGKILL)


def kill_processes(pids: list[int]) -> None:
    """Kill processes, of which some may have ended."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
