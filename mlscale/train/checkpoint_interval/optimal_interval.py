"""The interval between two checkpoints that loses least: formulas of Young (1974) and Daly (2006).

All times are in seconds. `work` is the training between the end of a save and the start of the next one, so the starts
of two saves are `work + cost` apart. Failures are independent of each other, with a mean time of `mtbf` between two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

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
