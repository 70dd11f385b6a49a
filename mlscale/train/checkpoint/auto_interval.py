"""`callbacks.checkpoint.every=auto`: the interval of periodic checkpoints, from what a save is found to cost."""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mlscale.report.text import format_duration, format_number
from mlscale.runs.host.machine import count_usable_cores
from mlscale.runs.host.processes import measure_process_age
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

_FIRST_SECONDS = 60.0  # before the first save, which measures the cost
# The first save is part of the plan, too: a run that fails every minute must not wait that long for it.
_FIRST_SHARE = 0.1
_DAY = 86_400.0
_COSTS = 9  # whose median counts: one save on a busy disk changes nothing
_NEWS = 0.25  # the change of the interval that is worth a line


class AutoInterval:
    """The interval that follows the measured costs of saves.

    The cost of a save is the time for which the training thread waits, plus the CPU time of the thread that writes in
    the background, divided by the usable cores: the part of the machine that the training lacks meanwhile. The first
    rank's costs count; it writes.

    Args:
        mtbf_hours: mean time between failures of the whole run; None chooses by the platform and the machines.
    """

    def __init__(self, mtbf_hours: float | None) -> None:
        self._mtbf = None if mtbf_hours is None else mtbf_hours * 3600
        self._costs: deque[float] = deque(maxlen=_COSTS)
        self._unsettled: tuple[Path, float] | None = None  # a save that is still written, and how long it stopped us
        self._restart: float | None = None
        self._announced: float | None = None

    @property
    def has_cost(self) -> bool:
        """True once a save was measured, by this process or by the one that it resumes."""
        return bool(self._costs)

    def build_state(self) -> list[float]:
        """Return what a resumed run needs to continue with the same interval."""
        return list(self._costs)

    def restore_state(self, costs: list[float]) -> None:
        """Continue with the costs that `build_state` has returned."""
        self._costs = deque(costs, maxlen=_COSTS)

    def compute_seconds(self, trainer: Trainer) -> float:
        """Return the seconds between the starts of two saves; call at each step boundary."""
        if self._restart is None:  # at the first boundary: the first step includes compilation
            self._restart = measure_process_age() or 0.0
        self._settle_cost(trainer)
        mtbf = self._mtbf or choose_default_mtbf(trainer.num_nodes, os.environ)
        if not self._costs:
            return min(_FIRST_SECONDS, _FIRST_SHARE * mtbf)
        cost = statistics.median(self._costs)
        seconds = compute_limited_interval(cost, mtbf) + cost
        is_news = self._announced is None or abs(seconds / self._announced - 1) > _NEWS
        if is_news and trainer.is_global_zero:
            line = format_choice(cost, mtbf, self._restart)
            tqdm.write(line, file=sys.stderr)  # above a progress bar
        if is_news:
            self._announced = seconds
        return seconds

    def measure_save(self, trainer: Trainer, path: Path, started: float) -> None:
        """Note that a save which began at `started`, of `time.monotonic`, has returned to the training."""
        stall = time.monotonic() - started
        self._settle_cost(trainer)  # of the save before, which this one has waited for
        self._unsettled = (path, stall)

    def _settle_cost(self, trainer: Trainer) -> None:
        """Add the cost of the last save once the thread has written it."""
        if self._unsettled is None:
            return
        path, stall = self._unsettled
        io: Any = trainer.strategy.checkpoint_io
        written = io.get_writing_seconds(path) if isinstance(io, VerifiedCheckpointIO) else 0.0
        if written is not None:
            self._costs.append(stall + written / count_usable_cores())
            self._unsettled = None


def format_choice(cost: float, mtbf: float, restart: float) -> str:
    """Return the line that reports an interval, why it was chosen, and what is lost in spite of it."""
    work = compute_limited_interval(cost, mtbf)
    lost = compute_lost_share(work, cost, mtbf, restart)
    is_limited = work > compute_daly_interval(cost, mtbf)
    limit = f", saves may take {100 * MAX_OVERHEAD:.0f} % of the time" if is_limited else ""
    failures = "a day" if mtbf == _DAY else f"in {format_duration(mtbf)}"
    return (
        f"checkpoint every {format_duration(work + cost)}: a save costs {format_duration(cost)}, one failure "
        f"{failures} is expected (mtbf_hours){limit}; {format_number(100 * lost, 2)} % of the time is lost to saves "
        f"and failures, with a restart in {format_duration(restart)}"
    )


MAX_OVERHEAD = 0.03
"""The largest share of the time that saves may take, however often the run fails."""
_HOURS = 24.0
_PREEMPTIBLE_HOURS = 6.0
# What each platform sets in the processes of a job; all of them may take a machine away while it is used.
_PREEMPTING = ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "KUBERNETES_SERVICE_HOST")


def compute_young_interval(cost: float, mtbf: float) -> float:
    """Return Young's first-order approximation of the best `work`."""
    return math.sqrt(2 * cost * mtbf)


def compute_daly_interval(cost: float, mtbf: float) -> float:
    """Return Daly's higher-order approximation of the best `work`: below Young's where saves are expensive."""
    if cost >= 2 * mtbf:
        return mtbf
    part = cost / (2 * mtbf)
    return compute_young_interval(cost, mtbf) * (1 + math.sqrt(part) / 3 + part / 9) - cost


def compute_limited_interval(cost: float, mtbf: float) -> float:
    """Return Daly's interval, or a longer one where saves would take more than `MAX_OVERHEAD` of the time."""
    return max(compute_daly_interval(cost, mtbf), cost * (1 / MAX_OVERHEAD - 1))


def compute_lost_share(work: float, cost: float, mtbf: float, restart: float) -> float:
    """Return the expected share of the time that is lost to saves, repeated work and restarts.

    Daly's complete model: a save and a restart may fail, too. `restart` is the time between a failure and the first
    step after it.
    """
    try:
        expected = mtbf * math.exp(restart / mtbf) * math.expm1((work + cost) / mtbf)
    except OverflowError:
        return 1.0
    return 1 - work / expected


def choose_default_mtbf(nodes: int, environment: Mapping[str, str]) -> float:
    """Return the mean time between failures of a run of so many machines, where the user states none.

    Args:
        nodes: machines; a failure of any of them ends the run.
        environment: the variables of the process, which name the platform.
    """
    hours = _PREEMPTIBLE_HOURS if any(environment.get(name) for name in _PREEMPTING) else _HOURS
    return hours * 3600 / nodes
