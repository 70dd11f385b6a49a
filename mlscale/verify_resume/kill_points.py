"""Choose kill points: spread over a run, of several kinds, the same for the same seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from mlscale.verify_resume.traces import TraceLine

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
