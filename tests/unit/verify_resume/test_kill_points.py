"""Kill points: spread over a run's life, of each kind that it has, the same for the same seed."""

import pytest

from mlscale.verify_resume.killed_run import KillPoint, choose_kill_points, count_optimizer_steps
from mlscale.verify_resume.traces import TraceLine


def life(steps: int, every: int) -> list[TraceLine]:
    """A run that validates and saves after every `every` steps."""
    lines = []
    for step in range(1, steps + 1):
        kinds = ["step"] if step % every else ["validation", "step", "save", "epoch"]
        lines += [TraceLine(kind, step, 1, {}) for kind in kinds]
    return [*lines, TraceLine("end", steps, 1, {})]


@pytest.mark.parametrize("seed", range(20))
def test_they_are_spread_over_the_run(seed: int) -> None:
    run = life(100, 10)
    first, second, third = choose_kill_points(run, 3, seed)
    assert first.phase == "step"
    assert 1 <= first.step <= 33
    assert second.phase == "save"
    assert second.step in (40, 50, 60)
    assert third.phase == "validation"
    assert third.step in (90, 100)
    assert choose_kill_points(run, 3, seed) == [first, second, third]


def test_another_seed_draws_others() -> None:
    assert len({tuple(map(str, choose_kill_points(life(100, 10), 3, seed))) for seed in range(10)}) > 5


def test_only_the_first_comes_before_anything_is_saved() -> None:
    run = life(100, 60)
    assert all(kill.step >= 60 for kill in choose_kill_points(run, 6, 1)[1:])


def test_a_run_that_neither_validates_nor_saves_is_killed_at_steps() -> None:
    run = [TraceLine("step", step, 1, {}) for step in range(1, 9)]
    assert {kill.phase for kill in choose_kill_points(run, 5, 0)} == {"step"}


@pytest.mark.parametrize("count", [1, 2, 7])
def test_two_steps_are_enough(count: int) -> None:
    run = life(2, 2)
    kills = choose_kill_points(run, count, 0)
    assert len(kills) == count
    assert all(1 <= kill.step <= 2 for kill in kills)
    assert all(kill.step == 1 for kill in kills if kill.phase == "step")


def test_the_fourth_is_between_two_checkpoints_of_a_boundary_before_the_end() -> None:
    run = [*life(100, 10), *(TraceLine("save", step, 1, {}) for step in range(50, 101, 10))]
    kill = choose_kill_points(run, 4, 0)[-1]
    assert (kill.phase, kill.step) == ("between", 90)
    assert str(kill) == "step 90, between two checkpoints"
    assert choose_kill_points(life(100, 10), 4, 0)[-1].phase == "step"  # no boundary has two


def test_words() -> None:
    assert count_optimizer_steps(life(7, 2)) == 7
    assert str(KillPoint("save", 1200)) == "step 1,200, a checkpoint half written"
