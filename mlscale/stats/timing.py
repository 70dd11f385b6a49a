"""Compare the speed of two implementations on a shared machine.

The wall clock includes the time slices of other processes: its medians have been wrong by a factor of ten. Here both
calls are measured by their CPU time, in rounds of both, until an interval of their ratio decides. Use `compare_times`
wherever a decision depends on speed. Others also take caches and memory, which adds to CPU time, to the call that needs
more of them most: so the interval includes the ratio of the least disturbed blocks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from mlscale.stats.intervals import Interval, compute_quantile_interval

Call = Callable[[], object]
Clock = Callable[[], float]

DECISION_ROUNDS = (16, 32, 64, 128, 256)
"""Rounds after which the interval may decide. It holds for all of these checks together (Bonferroni)."""
BUDGET_S = 10.0
_SPREAD_ROUNDS, _PAUSE_S = 16, 0.3  # rounds in a row, and the pause between them: a machine's state lasts for seconds
_MIN_ROUNDS = 8  # rounds, however long they take: fewer give no interval of a median at this confidence
_WARM_UP = 3  # calls that are not measured: the first ones fill caches
_BLOCK_S = 0.001  # shorter calls are repeated: reading a clock takes less than 0.2 % of this
_PRECISE_HALF_WIDTH = (
    0.02  # without a bound: the half width of an interval, as a share of the ratio, that is precise enough
)


@dataclass(frozen=True)
class CallTime:
    """The time of one call.

    Attributes:
        cpu_ms: median of its CPU time, which does not depend on other processes.
        wall_ms: median by the wall clock, waiting for the CPU included; on an idle machine both are equal.
    """

    cpu_ms: float
    wall_ms: float


@dataclass(frozen=True)
class TimesCompared:
    """The comparison of two calls that were measured alternately.

    Attributes:
        first, second: the time of each.
        ratio: CPU time of the first divided by that of the second: 2 means that the second is twice as fast. The median
            over the rounds and its interval, which is valid for every distribution of the noise, and includes the ratio
            of the tenth of the blocks that were least disturbed.
        rounds: the number of measured rounds.
        is_oversubscribed: more processes wanted to compute than the machine has cores.
    """

    first: CallTime
    second: CallTime
    ratio: Interval
    rounds: int
    is_oversubscribed: bool = False

    def list_wall_times(self, first: str, second: str) -> dict[str, float]:
        """Return `<name>_latency_ms` by the wall clock; none where it counts the time of other processes, too."""
        sides = {first: self.first, second: self.second}
        return {} if self.is_oversubscribed else {f"{name}_latency_ms": side.wall_ms for name, side in sides.items()}


def is_interval_at_least(interval: Interval, bound: float) -> bool | None:
    """Return True if the true value is `bound` or more; None where the interval has both sides or is not known."""
    if interval.low >= bound:
        return True
    return False if interval.high < bound else None


def is_interval_at_most(interval: Interval, bound: float) -> bool | None:
    """Return True if the true value is `bound` or less; None where the interval has both sides or is not known."""
    if interval.high <= bound:
        return True
    return False if interval.low > bound else None


def compare_times(
    first: Call,
    second: Call,
    *,
    bound: float | None = None,
    budget_s: float = BUDGET_S,
    confidence: float = 0.95,
    cpu_clock: Clock = time.thread_time,
    spread: bool = False,
) -> TimesCompared:
    """Measure both calls until the interval of their ratio excludes `bound`, or the budget is spent.

    A round is first, second, second, first: a drift of the machine's speed, and the caches that one call leaves to the
    next, affect both equally.

    Args:
        first, second: the calls to measure; their results are ignored.
        bound: the ratio that a decision depends on; None measures to within 2 %.
        budget_s: seconds by the wall clock; eight rounds are measured in any case.
        confidence: of the ratio's interval, two-sided.
        spread: measure at four times at least, with pauses, and let the interval hold four in five of the rounds: what
            another process measures later is in the range of the rounds, not of their median.
        cpu_clock: `time.thread_time` for calls that compute in the calling thread (ONNX Runtime and torch with one
            thread); `time.process_time` where they have threads of their own and nothing else of this process computes.
    """
    started, is_oversubscribed = time.perf_counter(), os.getloadavg()[0] > (os.cpu_count() or 1)
    sides = [_TimedCall(call, cpu_clock) for call in (first, second)]
    a, b = sides
    ratios: list[float] = []
    # Bonferroni: each check gets its share of the error, as stopping at the first clear one would inflate it.
    at_each = 1 - (1 - confidence) / len(DECISION_ROUNDS)
    checked = DECISION_ROUNDS[2:] if spread else DECISION_ROUNDS
    while True:
        ratios.append(_measure_ratio(a, b))
        spent = len(ratios) >= _MIN_ROUNDS and time.perf_counter() - started > budget_s
        if spread and len(ratios) % _SPREAD_ROUNDS == 0 and len(ratios) < checked[0]:
            time.sleep(_PAUSE_S)
        if len(ratios) in checked or spent:
            median_ratio = compute_quantile_interval(np.array(ratios), 0.5, at_each)
            others = [a.quiet_s / b.quiet_s, *(np.quantile(ratios, (0.1, 0.9)) if spread else ())]
            ratio = Interval(
                median_ratio.value, float(min(median_ratio.low, *others)), float(max(median_ratio.high, *others))
            )
            # More rounds make the median precise, but no machine quiet.
            if (
                spent
                or len(ratios) == DECISION_ROUNDS[-1]
                or _is_clear(median_ratio if bound is None else ratio, bound)
            ):
                return TimesCompared(a.time, b.time, ratio, len(ratios), is_oversubscribed)


def _measure_ratio(a: _TimedCall, b: _TimedCall) -> float:
    """Measure one round, and return the ratio of its CPU times."""
    in_order = a.measure_block(), b.measure_block()
    in_reverse = b.measure_block(), a.measure_block()
    return (in_order[0] + in_reverse[1]) / (in_order[1] + in_reverse[0])


def _is_clear(ratio: Interval, bound: float | None) -> bool:
    if bound is None:
        return ratio.high - ratio.low <= 2 * _PRECISE_HALF_WIDTH * ratio.value
    return not ratio.low < bound <= ratio.high


class _TimedCall:
    """One of the two calls, and the times of its blocks."""

    def __init__(self, call: Call, cpu_clock: Clock) -> None:
        self._call, self._clock = call, cpu_clock
        self._repeats = 1
        self._cpu_s: list[float] = []
        self._wall_s: list[float] = []
        for _ in range(_WARM_UP):
            call()
        while self.measure_block() * self._repeats < _BLOCK_S:
            self._repeats *= 2
        self._cpu_s.clear()
        self._wall_s.clear()

    @property
    def time(self) -> CallTime:
        return CallTime(1000 * median(self._cpu_s), 1000 * median(self._wall_s))

    @property
    def quiet_s(self) -> float:
        """CPU seconds of a call in the tenth of the blocks that took the least."""
        return float(np.quantile(self._cpu_s, 0.1))

    def measure_block(self) -> float:
        """Measure one block, and return the CPU seconds of one call; never zero, which a coarse clock may measure."""
        wall, cpu = time.perf_counter(), self._clock()
        for _ in range(self._repeats):
            self._call()
        cpu, wall = self._clock() - cpu, time.perf_counter() - wall
        self._cpu_s.append(max(cpu, 1e-9) / self._repeats)
        self._wall_s.append(wall / self._repeats)
        return self._cpu_s[-1]
