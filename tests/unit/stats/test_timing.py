"""Which of two calls is faster: decided by CPU time, whatever else the machine does."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mlscale.stats import timing
from mlscale.stats.intervals import Interval
from mlscale.stats.timing import (
    DECISION_ROUNDS,
    TimesCompared,
    _is_clear,
    _TimedCall,
    compare_times,
    is_interval_at_least,
    is_interval_at_most,
)


def work(count: int) -> Callable[[], object]:
    return lambda: sum(range(count))


class Machine:
    """A clock that calls advance: each takes its time, and what the noise adds to it."""

    def __init__(self, noise: Callable[[], float] = lambda: 1.0) -> None:
        self.now, self.noise = 0.0, noise

    def call(self, seconds: float) -> Callable[[], object]:
        def takes() -> None:
            self.now += seconds * self.noise()

        return takes

    def compare(self, first: float, second: float, **settings: Any) -> TimesCompared:
        return compare_times(self.call(first), self.call(second), cpu_clock=lambda: self.now, **settings)


@pytest.fixture
def busy() -> Iterator[None]:
    """Other threads that compute: the wall clock of a call is several times its CPU time."""
    end = threading.Event()

    def compute() -> None:
        while not end.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield
    end.set()
    for thread in threads:
        thread.join()


def test_a_known_ratio_beside_others_that_compute(busy: None) -> None:
    found = compare_times(work(40_000), work(20_000), bound=1.3, budget_s=3)
    assert found.ratio.value == pytest.approx(2, rel=0.25)
    assert is_interval_at_least(found.ratio, 1.3) is True
    assert is_interval_at_most(found.ratio, 1.3) is False
    assert found.first.cpu_ms / found.second.cpu_ms == pytest.approx(2, rel=0.25)


def test_waiting_is_not_computing() -> None:
    def waits() -> None:
        time.sleep(0.002)
        sum(range(20_000))

    found = compare_times(waits, work(20_000), bound=2, budget_s=2)
    assert is_interval_at_least(found.ratio, 2) is False
    # Not by how much: on a busy machine the other one waits as well.
    assert found.first.cpu_ms < 2 <= found.first.wall_ms


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.12, 4.4])
def test_ratio_and_times_without_noise(ratio: float) -> None:
    found = Machine().compare(ratio * 0.01, 0.01)
    assert (found.ratio.low, found.ratio.value, found.ratio.high) == pytest.approx((ratio, ratio, ratio))
    assert (found.first.cpu_ms, found.second.cpu_ms) == pytest.approx((10 * ratio, 10))
    assert found.rounds == DECISION_ROUNDS[0]


def test_the_time_by_the_wall_clock_is_that_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    found = machine.compare(0.0125, 3e-5)
    assert (found.first.wall_ms, found.second.wall_ms) == pytest.approx((12.5, 0.03), rel=1e-6)


def test_what_is_measured_to_choose_the_repeats_does_not_count() -> None:
    machine = Machine()
    timed = _TimedCall(machine.call(3e-6), lambda: machine.now)
    machine.noise = lambda: 7.0
    timed.measure_block()
    assert timed.time.cpu_ms == pytest.approx(0.021)


def test_quick_calls_are_repeated_so_that_the_clock_is_fine_enough() -> None:
    machine = Machine()
    ticks = compare_times(machine.call(3e-6), machine.call(2e-6), cpu_clock=lambda: math.floor(machine.now * 1e5) / 1e5)
    assert ticks.ratio.value == pytest.approx(1.5, rel=0.02)


def test_a_machine_that_slows_down_all_the_time_favours_neither() -> None:
    slower = itertools.count(1)
    found = Machine(lambda: 1 + next(slower) / 5).compare(0.01, 0.01)
    assert found.ratio.low <= 1 <= found.ratio.high
    assert found.ratio.value == pytest.approx(1, abs=0.01)


def test_rare_outliers_decide_nothing() -> None:
    rng = random.Random(0)
    found = Machine(lambda: 30.0 if rng.random() < 0.03 else rng.uniform(1, 1.05)).compare(0.0112, 0.01, bound=1.05)
    assert is_interval_at_least(found.ratio, 1.05) is True
    assert found.ratio.value == pytest.approx(1.12, abs=0.02)


def test_the_range_includes_the_ratio_of_a_quiet_machine() -> None:
    """Others that take the caches slow the call down that needs more of them; now and then they don't."""
    rng, machine = random.Random(0), Machine()

    def disturb(seconds: float, most: float) -> Callable[[], object]:
        def takes() -> None:
            machine.now += seconds * (1 + (rng.random() < 0.8) * rng.uniform(most / 2, most))

        return takes

    found = compare_times(disturb(0.0157, 1.0), disturb(0.01, 0.3), cpu_clock=lambda: machine.now)
    assert found.ratio.value > 1.8
    assert found.ratio.low <= 1.57 * 1.001


@pytest.mark.parametrize(("load", "names"), [(0.5, ["a_latency_ms", "b_latency_ms"]), (1e6, [])])
def test_the_wall_clock_of_a_machine_with_too_many_processes_is_left_out(
    load: float, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, load, load))
    assert list(Machine().compare(0.02, 0.01).list_wall_times("a", "b")) == names


def test_it_measures_longer_near_the_bound_and_then_is_undecided() -> None:
    rng = random.Random(0)
    noisy = Machine(lambda: rng.uniform(1, 1.5))
    far = noisy.compare(0.02, 0.01, bound=1.05)
    near = noisy.compare(0.0105, 0.01, bound=1.05)
    assert (far.rounds, is_interval_at_least(far.ratio, 1.05)) == (DECISION_ROUNDS[0], True)
    assert (near.rounds, is_interval_at_least(near.ratio, 1.05), is_interval_at_most(near.ratio, 1.05)) == (
        DECISION_ROUNDS[-1],
        None,
        None,
    )
    assert near.ratio.high - near.ratio.low < far.ratio.high - far.ratio.low


def test_the_budget_ends_it_but_not_before_an_interval_is_known() -> None:
    rng = random.Random(0)
    found = Machine(lambda: rng.uniform(1, 3)).compare(0.01, 0.01, bound=1, budget_s=0)
    assert found.rounds == 8
    assert math.isfinite(found.ratio.low)
    assert math.isfinite(found.ratio.high)


def test_wrong_decisions_are_rare_at_the_bound() -> None:
    """At equality each side may be decided with 2.5 %, over all checks together."""
    rng = random.Random(0)
    machine = Machine(lambda: rng.expovariate(1) + 0.5)
    found = [machine.compare(0.01, 0.01, bound=1).ratio for _ in range(150)]
    wrong = sum(not each.low <= 1 <= each.high for each in found)
    assert wrong <= 15  # 5 % of 150 and what chance adds


def test_without_a_bound_it_is_measured_until_it_is_precise() -> None:
    rng = random.Random(0)
    found = Machine(lambda: rng.uniform(1, 1.1)).compare(0.02, 0.01)
    assert found.ratio.high - found.ratio.low <= 0.04 * found.ratio.value


@pytest.mark.parametrize(
    ("low", "high", "least", "most"),
    [
        (1.0, 1.2, True, None), (0.9, 1.0, None, True), (0.8, 0.9, False, True), (1.1, 1.2, True, False),
        (0.9, 1.1, None, None), (math.nan, math.nan, None, None), (-math.inf, math.inf, None, None),
    ],
)  # fmt: skip
def test_only_an_interval_beside_the_bound_decides(
    low: float, high: float, least: bool | None, most: bool | None
) -> None:
    assert is_interval_at_least(Interval(1, low, high), 1) is least
    assert is_interval_at_most(Interval(1, low, high), 1) is most


@pytest.mark.parametrize(
    ("low", "high", "bound", "clear"),
    [
        (0.985, 1.02, None, True), (0.981, 1.0205, None, True), (0.98, 1.021, None, False), (1.1, 1.2, 1.1, True),
        (1.1, 1.2, 1.15, False), (1.1, 1.2, 1.2, False), (1.1, 1.2, 1.21, True), (1.1, 1.2, 1.0, True),
    ],
)  # fmt: skip
def test_an_interval_is_clear(low: float, high: float, bound: float | None, clear: bool) -> None:
    """Without a bound: within two percent of the estimate, which is 1 here, on either side."""
    assert _is_clear(Interval(1.0, low, high), bound) is clear


def test_the_interval_of_a_spread_measurement_holds_most_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    machine = Machine()

    def first() -> None:  # as on a machine whose state lasts for seconds
        machine.now += 2 if len(pauses) < 2 else 3

    compared = compare_times(first, machine.call(1), cpu_clock=lambda: machine.now, spread=True)
    assert pauses == [timing._PAUSE_S] * 3
    assert compared.rounds >= 64
    assert compared.ratio.low == pytest.approx(2)
    assert compared.ratio.high == pytest.approx(3)
