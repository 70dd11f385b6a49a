"""Where to kill a run: points spread over its life, of several kinds, the same for the same seed."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from mlscale.verify_resume.traces import Line

_KINDS = ("step", "save", "validation", "between")


@dataclass(frozen=True)
class Kill:
    """A point of a run's life.

    Attributes:
        place: step (before a forward pass), save (a checkpoint is half written), validation (after its first batch), or
            between (of the checkpoints that are saved at one boundary the first is committed, the second half written).
        step: optimizer steps taken by then.
    """

    place: str
    step: int

    def __str__(self) -> str:
        within = {
            "step": "",
            "save": ", a checkpoint half written",
            "validation": ", within a validation",
            "between": ", between two checkpoints",
        }
        return f"step {self.step:,}{within[self.place]}"


def steps_of(lines: list[Line]) -> int:
    """Optimizer steps of a whole run, from its trace."""
    return max((line.step for line in lines), default=0)


def choose(lines: list[Line], count: int, seed: int) -> list[Kill]:
    """`count` points, from early to late, one in each part of the run's life; the last near its end.

    Args:
        lines: the trace of the whole run, which says where it validates and saves.
        seed: draws the points.
    """
    draw = random.Random(f"{seed}")  # noqa: S311 - no secret
    total = steps_of(lines)
    after_save = min((line.step for line in lines if line.kind == "save"), default=0) + 1
    kills: list[Kill] = []
    for number in range(count):
        low, high = 1 + number * (total - 1) // count, max(1, (number + 1) * (total - 1) // count)
        if number and after_save < total:  # before anything is saved there is nothing to go on with: tried once
            low, high = max(low, min(after_save, total - 1)), max(high, min(after_save, total - 1))
        if count > 1 and number == count - 1:
            low = max(low, high - total // 10)
        kills.append(_of_kind(_KINDS[number % len(_KINDS)], lines, low, high, draw))
    return kills


def _steps_with(place: str, lines: list[Line]) -> list[int]:
    """The steps at which the run can be killed at a place, sorted."""
    if place != "between":
        return sorted({line.step for line in lines if line.kind == place})
    saves = Counter(line.step for line in lines if line.kind == "save")
    total = steps_of(lines)  # after it no step is left to take, so there is nothing to compare
    return sorted(step for step, count in saves.items() if count > 1 and step < total)


def _of_kind(place: str, lines: list[Line], low: int, high: int, draw: random.Random) -> Kill:
    """A point of a kind between two steps; just later if there is none; a step where the run has none of it at all."""
    if place != "step":
        there = _steps_with(place, lines)
        within = [step for step in there if low <= step <= high] or [step for step in there if step > high][:1]
        if within or there:
            return Kill(place, draw.choice(within or there[-1:]))
    return Kill("step", draw.randint(low, max(low, high)))
