"""`callbacks.checkpoint.every=auto`: the interval of periodic checkpoints, from what a save is found to cost."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mlscale.report.text import format_duration, format_number
from mlscale.runs.host.machine import count_usable_cores
from mlscale.runs.host.processes import measure_process_age
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.checkpoint_interval.optimal_interval import (
    MAX_OVERHEAD,
    choose_default_mtbf,
    compute_daly_interval,
    compute_limited_interval,
    compute_lost_share,
)

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
