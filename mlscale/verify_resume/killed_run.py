"""Train by a command on this machine, until it ends or all of its processes are killed by SIGKILL."""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlscale.verify_resume import stop_request as halts
from mlscale.verify_resume.played_node import extract_error_text, play_node, read_from
from mlscale.verify_resume.traces import TraceLine

_POLL_SECONDS = 0.02
_RANK_CODE = re.compile(r"^E\d{4} .* failed \(exitcode: (\d+)\) local_rank:", re.MULTILINE)


@dataclass(frozen=True)
class CommandExit:
    """The end of a command.

    Attributes:
        code: its exit code; None where it was killed as planned.
        output: the error that it printed, or its last lines.
        seconds: its duration.
    """

    code: int | None
    output: str
    seconds: float


BuildCommand = Callable[[Sequence[str]], tuple[list[str], Mapping[str, str]]]
"""From words of mlscale to the command that starts them, and the variables that it needs."""


def build_local_command(words: Sequence[str]) -> tuple[list[str], Mapping[str, str]]:
    """Return the command as a user types it: it starts its ranks itself."""
    return [sys.executable, "-m", "mlscale", *words], {}


@dataclass(frozen=True)
class CommandStarter:
    """Trains by a command on this machine, and kills all of its processes at once, by SIGKILL.

    Attributes:
        root: the folder of runs.
        build_command: adds the launcher to a command.
    """

    root: Path
    build_command: BuildCommand = build_local_command

    def train(self, run: Path, kill: KillPoint | None = None) -> CommandExit:
        """Train the run in the folder `run` from its current state; return when it has ended or was killed.

        Args:
            run: a run folder, whose config must have a `Trace` that writes into `<run>/trace`.
            kill: the point at which to kill it.
        """
        folder, log = run / "trace", self._get_log_path(run)
        halts.write_stop_order(folder, *((kill.phase, kill.step) if kill else ()))
        start = time.monotonic()
        # All attempts of a run write to one log: only what this one adds is read.
        offset = log.stat().st_size if log.exists() else 0
        # Like `mlscale runs resume`: with the run's own config, not composed again. A run without checkpoints restarts.
        words, variables = self.build_command(["train", f"resume={run}", f"runs_dir={self.root}", "trust=true"])
        with play_node("", log) as node:
            node.start_commands([words], [{**os.environ, **variables}])
            while node.get_exit_code() is None and not halts.get_stopped_path(folder).exists():
                time.sleep(_POLL_SECONDS)
            # Read before all are killed: None then means that the run was still there to be killed.
            code = node.get_exit_code()
        text = read_from(log, offset)
        # torchrun ends with 1 whatever its ranks end with, and prints their codes.
        if code and (of_rank := _RANK_CODE.search(text)):
            code = int(of_rank[1])
        return CommandExit(code, extract_error_text(text), time.monotonic() - start)

    def read_output(self, run: Path) -> str:
        """Return what all attempts of a run have printed."""
        return read_from(self._get_log_path(run), 0)

    def _get_log_path(self, run: Path) -> Path:
        return self.root / f"{run.name}.log"


_KINDS = ("step", "save", "validation", "between")


@dataclass(frozen=True)
class KillPoint:
    """A point of a run at which it is killed.

    Attributes:
        phase: step (before a forward pass), save (a checkpoint is half written), validation (after its first batch), or
            between (of two checkpoints at one boundary the first is committed, the second half written).
        step: optimizer steps so far.
    """

    phase: str
    step: int

    def __str__(self) -> str:
        within = {
            "step": "",
            "save": ", a checkpoint half written",
            "validation": ", within a validation",
            "between": ", between two checkpoints",
        }
        return f"step {self.step:,}{within[self.phase]}"


def count_optimizer_steps(lines: list[TraceLine]) -> int:
    """Return the number of optimizer steps of a complete run, from its trace."""
    return max((line.step for line in lines), default=0)


def choose_kill_points(lines: list[TraceLine], count: int, seed: int) -> list[KillPoint]:
    """Return `count` kill points, from early to late, one in each part of the run; the last near its end.

    Args:
        lines: the trace of the complete run, with its validations and saves.
        seed: for the random choice of points.
    """
    # Seeded by a text, which Python hashes with SHA-512: the same points in every version.
    draw = random.Random(f"{seed}")  # noqa: S311 - no secret
    total = count_optimizer_steps(lines)
    after_save = min((line.step for line in lines if line.kind == "save"), default=0) + 1
    kills: list[KillPoint] = []
    for number in range(count):
        low, high = 1 + number * (total - 1) // count, max(1, (number + 1) * (total - 1) // count)
        if number and after_save < total:  # a kill before the first save only tests a restart: once is enough
            low, high = max(low, min(after_save, total - 1)), max(high, min(after_save, total - 1))
        if count > 1 and number == count - 1:
            low = max(low, high - total // 10)
        kills.append(_pick_kill_point(_KINDS[number % len(_KINDS)], lines, low, high, draw))
    return kills


def _find_killable_steps(phase: str, lines: list[TraceLine]) -> list[int]:
    """Return the steps at which the run can be killed at a place, sorted."""
    if phase != "between":
        return sorted({line.step for line in lines if line.kind == phase})
    saves = Counter(line.step for line in lines if line.kind == "save")
    total = count_optimizer_steps(lines)  # not at the last step: no step follows that could be compared
    return sorted(step for step, count in saves.items() if count > 1 and step < total)


def _pick_kill_point(phase: str, lines: list[TraceLine], low: int, high: int, draw: random.Random) -> KillPoint:
    """Return a point of a kind between two steps, else a later one; a plain step if the run has none of this kind."""
    if phase != "step":
        steps = _find_killable_steps(phase, lines)
        within = [step for step in steps if low <= step <= high] or [step for step in steps if step > high][:1]
        if within or steps:
            return KillPoint(phase, draw.choice(within or steps[-1:]))
    return KillPoint("step", draw.randint(low, max(low, high)))
