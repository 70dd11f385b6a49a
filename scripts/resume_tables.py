"""The tables of `scripts/bench_resume.py`: verdicts by layout and phase, ends after a death, times to a first step."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from scripts import run_phases

_START_UP_S = 5.0  # where none was measured yet


@dataclass
class Kill:
    """A kill.

    Attributes:
        layout, phase: where and when.
        whom: all processes, a process, its launcher or rank 0.
        seconds: until all of the attempt had ended.
        is_identical: whether the run came to the same as the undisturbed one.
    """

    layout: str
    phase: str
    whom: str
    seconds: float
    is_identical: bool = False


@dataclass
class Timings:
    """What starts of a layout took.

    Attributes:
        cold, warm: seconds to the first step of a new run, and to the first new step of one that resumed.
        replayed: batches that were loaded again.
    """

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    replayed: int = 0

    @property
    def start_up_s(self) -> float:
        """Seconds to the first step."""
        return statistics.median(self.cold + self.warm) if self.cold + self.warm else _START_UP_S

    def note_steps(self, trial: Path, begins: list[float]) -> None:
        """Keep the times to the first steps of a trial whose attempts began at `begins`."""
        for entry in run_phases.read_first_steps(trial):
            seconds = entry["time"] - max(begin for begin in begins if begin <= entry["time"])
            (self.cold if entry["resumed_from"] is None else self.warm).append(seconds)
            self.replayed += entry["replayed"]


def print_tables(kills: list[Kill], timings: dict[str, Timings], layouts: list[str]) -> None:
    """Print all tables, in Markdown."""
    print(f"\n| | {' | '.join(run_phases.PHASES)} | kills | identical |\n|{'---|' * (len(run_phases.PHASES) + 3)}")
    for layout in [*layouts, "all"]:
        of_layout = [kill for kill in kills if layout in (kill.layout, "all")]
        counts = [str(sum(kill.phase == phase for kill in of_layout)) for phase in run_phases.PHASES]
        print(f"| {layout} | {' | '.join(counts)} | {len(of_layout)} | {_count_identical(of_layout)} |")
    print("\n| killed | kills | identical | s until all had ended, median [least, most] |\n|---|---|---|---|")
    for whom in sorted({kill.whom for kill in kills}):
        these = [kill for kill in kills if kill.whom == whom]
        print(f"| {whom} | {len(these)} | {_count_identical(these)} | {_spread(kill.seconds for kill in these)} |")
    print(f"\n{_count_identical(kills)} of {len(kills)} identical")
    print("\n| | cold start's first step, s | restart's first new step, s | batches replayed |\n|---|---|---|---|")
    for layout, times in timings.items():
        print(f"| {layout} | {_spread(times.cold)} | {_spread(times.warm)} | {times.replayed} |")


def _count_identical(kills: list[Kill]) -> int:
    return sum(kill.is_identical for kill in kills)


def _spread(seconds: Iterable[float]) -> str:
    """Median, least and most."""
    values = list(seconds)
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]" if values else ""
