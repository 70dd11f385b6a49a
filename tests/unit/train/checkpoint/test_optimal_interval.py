"""The interval between two checkpoints: the papers' formulas, and that no other interval loses clearly less."""

from __future__ import annotations

import math
import secrets

import numpy as np
import pytest

from mlscale.train.checkpoint.auto_interval import (
    choose_default_mtbf,
    compute_daly_interval,
    compute_limited_interval,
    compute_lost_share,
    compute_young_interval,
)

DAY = 86_400.0


def test_youngs_interval() -> None:
    assert compute_young_interval(50, 10_000) == 1000  # sqrt(2 · 50 · 10,000)


def test_dalys_interval_by_hand() -> None:
    # part = 0.01, so 1000 · (1 + 0.1 / 3 + 0.01 / 9) - 100
    assert compute_daly_interval(100, 5000) == pytest.approx(1000 * (1 + 1 / 30 + 1 / 900) - 100)
    assert compute_daly_interval(100, 5000) == pytest.approx(934.4444444)
    # Where a save takes twice the time between failures, and more.
    assert compute_daly_interval(200, 100) == compute_daly_interval(1000, 100) == 100


def test_both_agree_where_saves_are_cheap() -> None:
    assert compute_daly_interval(1e-6, DAY) == pytest.approx(compute_young_interval(1e-6, DAY), rel=1e-5)


@pytest.mark.parametrize("cost", [0.01, 1.0, 30.0, 3000.0])
@pytest.mark.parametrize("mtbf", [36.0, 3600.0, DAY])
def test_saves_take_three_percent_at_most(cost: float, mtbf: float) -> None:
    work = compute_limited_interval(cost, mtbf)
    assert cost / (work + cost) <= 0.03 + 1e-12
    daly = compute_daly_interval(cost, mtbf)
    assert work == daly or cost / (daly + cost) > 0.03  # limited only where it must be


@pytest.mark.parametrize("part", [1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("restart", [0.0, 0.3])
def test_the_model_finds_no_better_interval(part: float, restart: float) -> None:
    share = compute_lost_share(compute_daly_interval(part, 1.0), part, 1.0, restart)
    best = min(compute_lost_share(work, part, 1.0, restart) for work in np.geomspace(part / 10, 10, 4000))
    assert share <= best * 1.005
    assert best > 0.9 * share  # it is the same model


def simulate_loss(work: float, cost: float, restart: float, draws: np.random.Generator, count: int = 100_000) -> float:
    """The share of the time that is lost by a run of `count` saves that fails once in a unit of time, by chance."""
    took, left = 0.0, np.full(count, work + cost)
    while left.size:
        failure = draws.exponential(size=left.size)
        failed = failure < left
        took += np.where(failed, failure, left).sum()
        # What was done since the last save is done again, once the run has restarted, which may fail in its turn.
        left = np.full(int(failed.sum()), restart + work + cost)
    return 1 - count * work / took


@pytest.mark.parametrize("part", [0.001, 0.01, 0.1])
def test_runs_that_fail_by_chance_lose_least_by_it(part: float) -> None:
    seed, restart = secrets.randbits(32), 0.02
    draws = np.random.default_rng(seed)
    chosen = compute_daly_interval(part, 1.0)
    share = simulate_loss(chosen, part, restart, draws)
    assert share == pytest.approx(compute_lost_share(chosen, part, 1.0, restart), rel=0.06), seed
    others = {factor: simulate_loss(chosen * factor, part, restart, draws) for factor in (0.25, 0.5, 0.8, 1.25, 2, 4)}
    assert share <= 1.06 * min(others.values()), (seed, others)
    # The search does see what a wrong interval costs.
    assert min(others[0.25], others[4]) > 1.1 * share, (seed, others)


def test_a_restart_does_not_move_the_best() -> None:
    works = np.geomspace(0.01, 2, 2000)
    best = [min(works, key=lambda work: compute_lost_share(work, 0.01, 1.0, restart)) for restart in (0.0, 0.5)]
    assert best[0] == best[1]
    assert compute_lost_share(0.14, 0.01, 1.0, 0.5) > compute_lost_share(0.14, 0.01, 1.0, 0.0)


def test_a_run_that_never_gets_anywhere_loses_all() -> None:
    assert compute_lost_share(1e6, 1.0, 1.0, 0.0) == 1.0
    assert math.isclose(compute_lost_share(1.0, 0.0, 1e9, 0.0), 0.0, abs_tol=1e-6)


def test_the_default_time_between_failures() -> None:
    assert choose_default_mtbf(1, {}) == DAY
    assert choose_default_mtbf(4, {}) == DAY / 4
    for name in ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "KUBERNETES_SERVICE_HOST"):
        assert choose_default_mtbf(2, {name: "7"}) == DAY / 8
