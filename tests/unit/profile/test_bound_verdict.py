"""What bounds a run, from times; and what may be tried against it."""

from dataclasses import replace

import pytest

from mlscale.profile.bound_verdict import ROUNDS, Factor, Straggler, evaluate_rounds, find_straggler
from mlscale.profile.remedies import Remedy, RemedyTrial, RunSetup, propose_remedies, select_best_remedy
from mlscale.profile.step_timers import StepTimes
from mlscale.runs.host import machine as load
from mlscale.runs.host.machine import MachineLoad


def rounds(wait: float, *headspace: float) -> list[tuple[StepTimes, StepTimes]]:
    """Rounds of ten steps of a second each, of which `wait` is one."""
    each = headspace if len(headspace) > 1 else headspace * ROUNDS
    return [(StepTimes(10, 1.0, wait, 0.0), StepTimes(10, 1 / factor, 0.0, 0.0)) for factor in each]


@pytest.mark.parametrize(
    ("wait", "headspace", "bound"),
    [
        (0.38, [1.6], "data"),
        (0.02, [1.3], "cores"),
        (0.01, [1.01], "step"),
        (0.0, [0.97], "step"),
        (0.01, [1.2, 1.3, 0.9, 1.2, 1.2], "unclear"),  # a round says otherwise
        (0.3, [1.0, 1.0, 1.1, 0.9, 1.0], "unclear"),  # a wait, and no gain without it
        (0.04, [1.04], "step"),
    ],
)
def test_bounds(wait: float, headspace: list[float], bound: str) -> None:
    assert evaluate_rounds(rounds(wait, *headspace)).bound == bound


def test_figures() -> None:
    verdict = evaluate_rounds(rounds(0.38, 1.4, 1.5, 1.6, 1.7, 1.8))
    assert verdict.headroom.value == pytest.approx(1.6)
    assert verdict.headroom.spread == pytest.approx(0.2 / 1.6)
    assert verdict.wait == pytest.approx(0.38)
    assert verdict.waited == pytest.approx(0.38)
    assert verdict.predicted == pytest.approx(1 / 0.62)
    assert verdict.real == 1.0
    assert verdict.steps == 10 * ROUNDS


@pytest.mark.parametrize(
    ("ranks", "found"),
    [
        ([{"w": 0.6, "c": 0.4}, {"c": 0.9, "w": 0.01}], Straggler(1, 0.6, ("c", 0.9))),
        ([{"sleep": 0.6, "c": 0.4}, {"w": 0.6, "c": 0.4}], Straggler(0, 0.6, ("sleep", 0.6))),
        ([{"w": 0.3, "c": 0.7}, {"w": 0.25, "c": 0.75}], None),  # in turn
        ([{"w": 0.06, "c": 0.94}, {"c": 1.0}], None),
        (
            [{"w": 0.2, "validation": 0.5, "c": 0.3}, {"validation": 0.6, "c": 0.4}],
            Straggler(1, 0.2, ("validation", 0.6), bounds_run=False),
        ),
        ([{"c": 1.0}], None),
    ],
)
def test_the_rank_that_others_wait_for(ranks: list[dict[str, float]], found: Straggler | None) -> None:
    assert find_straggler(ranks, "w", "c") == found


def test_a_gain_is_proven_by_every_round() -> None:
    assert Factor((1.2,) * ROUNDS).proven
    assert not Factor((1.2,) * (ROUNDS - 1)).proven
    assert not Factor((1.2,) * (ROUNDS - 1) + (0.99,)).proven
    assert not Factor((1.02,) * ROUNDS).proven


def tried_in_turn(bound: str, setup: RunSetup, *factors: float) -> list[str]:
    """What is tried, when it gives these factors."""
    tried: list[RemedyTrial] = []
    for remedy in propose_remedies(bound, setup, tried):
        tried.append(RemedyTrial(remedy, Factor((factors[len(tried)],) * ROUNDS)))
    return [each.remedy.typed for each in tried]


def a_setup(workers: int | None = 0, precision: str = "32-true", threads: int = 2) -> RunSetup:
    return RunSetup(workers, "data.workers", precision, True, threads, 2, False, False)


def test_workers_are_doubled_while_that_helps() -> None:
    assert tried_in_turn("data", a_setup(), 1.9, 3.5, 3.6) == ["data.workers=2", "data.workers=4", "data.workers=8"]
    assert tried_in_turn("data", a_setup(), 1.9, 1.95) == ["data.workers=2", "data.workers=4"]
    assert tried_in_turn("data", a_setup(2), 1.01) == ["data.workers=4"]
    assert tried_in_turn("data", a_setup(20)) == []
    assert tried_in_turn("data", a_setup(None)) == []  # a loader that nobody can set


def test_fewer_where_they_take_cores() -> None:
    fewer = ["data.workers=2", "data.workers=1", "data.workers=0"]
    assert tried_in_turn("cores", a_setup(4), 1, 1, 1, 1) == [*fewer, "OMP_NUM_THREADS=1 (in the environment)"]
    assert tried_in_turn("cores", a_setup(0, threads=1)) == []


def test_against_computing() -> None:
    threads = "OMP_NUM_THREADS=1 (in the environment)"
    assert tried_in_turn("computing", a_setup(), 1, 1) == ["precision=bf16", threads]
    assert tried_in_turn("computing", a_setup(precision="bf16-mixed"), 1) == [threads]
    assert tried_in_turn("computing", a_setup(threads=1), 1) == ["precision=bf16"]
    assert tried_in_turn("unclear", a_setup()) == []
    pictures = replace(a_setup(threads=1), images=True)
    layout = "precision=bf16 precision.memory_format=channels_last"
    assert tried_in_turn("computing", pictures, 1, 1) == ["precision=bf16", layout]


def test_the_best_is_proven_and_asks_for_no_more_than_it_must() -> None:
    def with_factor(workers: int, *factors: float) -> RemedyTrial:
        return RemedyTrial(Remedy(f"data.workers={workers}", workers), Factor(factors))

    few, many = with_factor(2, *[2.82] * ROUNDS), with_factor(4, *[2.83] * ROUNDS)
    assert select_best_remedy([few, many]) is few
    assert select_best_remedy([few, with_factor(8, *[4.0] * ROUNDS)]) is not few
    unproven = with_factor(4, 1.5, 1.6, 1.4, 0.9)
    assert select_best_remedy([unproven, RemedyTrial(Remedy("x"), None, "out of memory")]) is None
    assert unproven.format_outcome() == "data.workers=4 1.45×, 0.90 to 1.60"
    assert RemedyTrial(Remedy("x"), None, "out of memory").format_outcome() == "x failed: out of memory"


def test_load() -> None:
    assert MachineLoad(7.1, 2).describe_oversubscription() == "the machine is oversubscribed (load 7.1 on 2 cores)"
    assert MachineLoad(1.9, 2).describe_oversubscription() == ""
    assert load.measure_load().cores >= 1
