"""What `mlscale profile` says of what it measured."""

from dataclasses import replace

import pytest

from mlscale.commands.profile.entry import RunProfile, build_profile_result
from mlscale.profile.bound_verdict import ROUNDS, Factor, Straggler, evaluate_rounds
from mlscale.profile.remedies import Remedy, RemedyTrial
from mlscale.profile.step_timers import StepTimes
from mlscale.report import Result
from mlscale.report.html import render_page
from mlscale.runs.host.machine import MachineLoad

QUIET = MachineLoad(0.5, 2)


def concluded(
    wait: float, headspace: float, *tried: RemedyTrial, between: float = 0.0, load: MachineLoad = QUIET, **shares: float
) -> Result:
    """The result of ten steps of a second each, in every round."""
    rounds = [(StepTimes(10, 1.0, wait, between), StepTimes(10, 1 / headspace, 0.0, 0.0))] * ROUNDS
    parts = {name.replace("_", " "): share for name, share in shares.items()}
    return build_profile_result(RunProfile(evaluate_rounds(rounds), load, list(tried), 64, parts), 12.0)


def gave(typed: str, factor: float, caution: str = "") -> RemedyTrial:
    workers = int(typed.partition("=")[2]) if "workers" in typed else None
    return RemedyTrial(Remedy(typed, workers, caution=caution), Factor((factor,) * ROUNDS))


def test_waiting_with_a_proven_remedy() -> None:
    found = concluded(0.38, 1.6, gave("data.workers=2", 1.2), gave("data.workers=4", 1.5))
    assert found.sentence == (
        "the step waits for data 38% of the time: a perfect loader gives 1.60× the speed (measured); "
        "type data.workers=4, proven 1.50× here"
    )
    assert found.details == {"bound_by": "data", "remedy": "data.workers=4"}
    assert found.metrics["step_ms"] == 1000
    assert found.metrics["wait_per_step_ms"] == pytest.approx(380)
    assert found.metrics["throughput_samples_per_s"] == 64
    assert found.metrics["data.workers=4_ratio"] == 1.5
    assert "data.workers=4" in render_page(
        "profile", found.sentence, True, found.metrics, found.artifacts, found.figures
    )


def test_no_remedy_is_advised_that_was_not_proven() -> None:
    found = concluded(0.0, 1.0, gave("precision=bf16", 0.84))
    assert found.sentence == (
        "computing bounds the run: a step waits for data 0% of its time, "
        "a perfect loader gives 1.00× the speed (measured); "
        "no remedy proven (tried precision=bf16 0.84×)"
    )
    assert "type" not in concluded(0.38, 1.6).sentence
    assert concluded(0.38, 1.6).sentence.endswith("no remedy tried")


def test_a_perfect_loader_is_never_reported_as_slower() -> None:
    assert "a perfect loader gives no measurable gain;" in concluded(0.0, 0.97).sentence


def test_what_to_look_at_before_it_is_kept() -> None:
    found = concluded(0.0, 1.0, gave("precision=bf16", 1.8, "compare the accuracy before you keep it"))
    assert found.sentence.endswith("type precision=bf16, proven 1.80× here; compare the accuracy before you keep it")


def test_more_than_a_perfect_loader_is_no_gain_to_believe() -> None:
    assert "the machine is not steady" in concluded(0.38, 1.6, gave("data.workers=4", 2.8)).sentence
    one_thread = gave("OMP_NUM_THREADS=1 (in the environment)", 2.0)  # which does nothing to the loader
    assert "not steady" not in concluded(0.02, 1.14, one_thread).sentence


def test_the_largest_part_is_the_headline_also_where_rounds_contradict_each_other() -> None:
    small_wait = concluded(0.09, 1.1, validation=0.49, computing=0.42, wait_for_data=0.09)
    assert small_wait.sentence.startswith("validation takes 49% of the time and bounds the run: a step waits")
    assert small_wait.details["bound_by"] == "validation"
    slow_steps = concluded(0.79, 5.1, validation=0.51, wait_for_data=0.38, computing=0.11)
    assert slow_steps.sentence.startswith("validation takes 51% of the time and bounds the run: a step waits")
    large_wait = concluded(0.38, 1.6, wait_for_data=0.38, computing=0.35, validation=0.27)
    assert large_wait.details["bound_by"] == "data"
    much_computing = concluded(0.1, 1.57, computing=0.47, validation=0.37, wait_for_data=0.1)
    assert much_computing.sentence.startswith(
        "computing takes 47% of the time and bounds the run: a step waits for data 10%"
    )
    steps = [
        (StepTimes(10, 1.0, 0.01, 0.0), StepTimes(10, 1 / factor, 0.0, 0.0)) for factor in (1.2, 1.3, 0.9, 1.2, 1.2)
    ]
    verdict = evaluate_rounds(steps)
    assert verdict.bound == "unclear"
    for part in ("validation", "checkpoints"):
        result = build_profile_result(RunProfile(verdict, QUIET, [], 64, {part: 0.6, "computing": 0.4}), 12.0)
        assert result.sentence.startswith(f"{part} takes 60% of the time and bounds the run")
    result = build_profile_result(RunProfile(verdict, QUIET, [], 64, {"computing": 0.6, "validation": 0.4}), 12.0)
    assert result.sentence.startswith("unclear what bounds the run")


def test_a_rank_that_others_wait_for_and_ranks_that_no_timer_can_tell_apart() -> None:
    verdict = evaluate_rounds([(StepTimes(10, 1.0, 0.0, 0.0), StepTimes(10, 1.0, 0.0, 0.0))] * ROUNDS)
    shares = {"wait for other ranks": 0.6, "computing": 0.4}
    straggler = Straggler(1, 0.6, ("callback Sleeper", 0.7))
    result = build_profile_result(RunProfile(verdict, QUIET, [], 64, shares, straggler=straggler), 12.0)
    assert result.sentence.startswith(
        "rank 1 bounds the run: another rank waits for it 60% of the time, and 70% of its own time is callback "
        "Sleeper; of the time of an epoch: computing 40%"
    )
    assert result.details["bound_by"] == "rank 1"
    smaller, shares = replace(straggler, bounds_run=False), {"checkpoints": 0.5, "wait for other ranks": 0.3}
    result = build_profile_result(RunProfile(verdict, QUIET, [], 64, shares, straggler=smaller), 12.0)
    assert result.sentence.startswith("checkpoints takes 50% of the time and bounds the run")
    assert "of the time of an epoch: another rank's wait for rank 1 60%" in result.sentence
    result = build_profile_result(RunProfile(verdict, QUIET, [], 64, {"computing": 1.0}, hides_waits=True), 12.0)
    assert result.sentence.startswith("computing or waiting for another rank takes 100% of the time and bounds the run")


def test_epochs_and_others() -> None:
    found = concluded(0.02, 1.0, between=0.3, load=MachineLoad(7.1, 2))
    assert "30% of the time lies between epochs" in found.sentence
    assert found.sentence.endswith(
        "oversubscribed (load 7.1 on 2 cores): these metrics are of the machine as it is now"
    )
    assert found.metrics["between_epochs_percent"] == pytest.approx(30)


def test_unclear_asks_for_another_measurement() -> None:
    assert "measure again" in concluded(0.3, 1.0).sentence


def test_a_part_that_takes_more_than_computing_bounds_the_run() -> None:
    found = concluded(0.01, 1.0, callback_Sleeper=0.7, computing=0.2, validation=0.08, logger_CSV=0.002)
    assert found.details["bound_by"] == "callback Sleeper"
    assert found.sentence.startswith(
        "callback Sleeper takes 70% of the time and bounds the run: a step waits for data 1% of its time, a perfect "
        "loader gives 1.00× the speed (measured); of the time of an epoch: computing 20%"
    )
    assert found.metrics["callback Sleeper_percent"] == pytest.approx(70)
    assert "logger CSV_percent" not in found.metrics


def test_a_loader_takes_no_cores_from_a_part_that_does_not_compute() -> None:
    asleep = concluded(0.02, 1.11, callback_Sleeper=0.76, computing=0.08)
    assert asleep.details["bound_by"] == "callback Sleeper"
    assert asleep.sentence.startswith("callback Sleeper takes 76% of the time and bounds the run")
    assert concluded(0.02, 1.11, computing=0.76, callback_Sleeper=0.08).details["bound_by"] == "cores"


def test_a_large_part_is_named_whatever_bounds_the_run() -> None:
    assert "of the time of an epoch: validation 30%" in concluded(0.0, 1.0, computing=0.6, validation=0.3).sentence
    assert "of the time of an epoch: computing 40%, callback X 20%" in (
        concluded(0.38, 1.6, computing=0.4, wait_for_data=0.38, callback_X=0.2).sentence
    )
    assert "of the time of an epoch" not in concluded(0.0, 1.0, computing=0.95, validation=0.05).sentence
