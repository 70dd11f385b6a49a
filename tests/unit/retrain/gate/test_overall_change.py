"""The change over all samples: the metric of each model, the end of its interval, its p-value and the flips."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.retrain.gate.overall_change import (
    OverallChange,
    compare_overall,
    compute_flip_tolerance,
    compute_scores,
)
from mlscale.retrain.gate.paired_columns import PairedColumns
from mlscale.stats.bootstrap import bootstrap_intervals
from mlscale.stats.paired import compute_mcnemar_mid_p, compute_score_interval
from mlscale.stats.permutation_test import compute_skewed_p, run_permutation_test
from mlscale.task_types.paired_metrics import MetricDefinition
from mlscale.task_types.registry import get_task_type

Floats = NDArray[np.float64]
NUMBERS, CLASSES, MASKS = (get_task_type(name) for name in ("regression", "classification", "segmentation"))


def pair(sides: Sequence[Mapping[str, Any]]) -> PairedColumns:
    first, second = sides
    return PairedColumns(first, second, np.arange(len(next(iter(first.values())))), 0, 0)


def pair_errors(first: Any, second: Any) -> PairedColumns:
    """Numbers that are predicted with these errors."""
    sides = [np.asarray(errors, np.float64)[:, None] for errors in (first, second)]
    return pair([{"predicted": errors, "truth": np.zeros_like(errors)} for errors in sides])


def pair_overlaps(first: Any, second: Any) -> PairedColumns:
    """Masks of one class, of which so many of eight pixels are hit."""
    sides = [np.asarray(hits)[:, None] for hits in (first, second)]
    every, loss = np.full_like(sides[0], 8), np.zeros(len(sides[0]))
    return pair(
        [{"hit": hits, "predicted": hits, "true": every, "iou": hits[:, 0] / 8, "loss": loss} for hits in sides]
    )


def compare_errors(
    first: Any, second: Any, alpha: float = 0.05, tolerance: float = 0.1, seed: int = 0
) -> OverallChange:
    return compare_overall(NUMBERS, pair_errors(first, second), alpha=alpha, tolerance=tolerance, seed=seed)


def test_right_and_wrong_predictions() -> None:
    truth = np.zeros(100, int)
    first, second = np.repeat([0, 1, 0, 1], [70, 12, 5, 13]), np.repeat([0, 0, 1, 1], [70, 12, 5, 13])
    columns = pair([{"truth": truth, "predicted": first}, {"truth": truth, "predicted": second}])
    # A tolerance of scores is not one of right and wrong.
    change = compare_overall(CLASSES, columns, alpha=0.1, tolerance=1)
    assert change.metric.name == "accuracy"
    assert (change.samples, change.gained, change.lost) == (100, 12, 5)
    assert (change.first, change.second, change.difference) == pytest.approx((0.75, 0.82, 0.07))
    assert change.low == pytest.approx(compute_score_interval(12, 5, 100, 0.9)[0])
    assert change.p_better == pytest.approx(compute_mcnemar_mid_p(12, 5)[1])


@pytest.mark.parametrize(("alpha", "needed"), [(0.4, 1), (0.25, 1), (0.249, 2), (0.125, 2), (0.05, 4), (0.01, 6)])
def test_the_fewest_samples_that_decide(alpha: float, needed: int) -> None:
    truth = np.zeros(needed, int)
    columns = pair([{"truth": truth, "predicted": truth + 1}, {"truth": truth, "predicted": truth}])
    change = compare_overall(CLASSES, columns, alpha=alpha, tolerance=0)
    assert change.needed == needed
    assert change.p_better <= alpha
    if needed > 1:
        assert compute_mcnemar_mid_p(needed - 1, 0)[1] > alpha


def test_a_higher_score_is_better() -> None:
    first, second = compute_scores(NUMBERS, pair_errors([1, -2], [0, 3]))
    assert (first.tolist(), second.tolist()) == ([-1, -2], [0, -3])
    first, second = compute_scores(MASKS, pair_overlaps([4, 8], [6, 2]))
    assert (first.tolist(), second.tolist()) == ([0.5, 1], [0.75, 0.25])


def test_what_is_no_flip_is_relative_to_the_size_of_an_error() -> None:
    assert compute_flip_tolerance(CLASSES, np.array([0.0, 1.0]), 0.5) == 0
    assert compute_flip_tolerance(MASKS, np.array([0.25, 0.5]), 0.5) == 0.5
    assert compute_flip_tolerance(NUMBERS, np.array([-2.0, 4.0, np.nan]), 0.5) == 1.5
    assert compute_flip_tolerance(NUMBERS, np.array([np.nan]), 0.5) == 0


def test_flips_exceed_the_tolerance() -> None:
    # An error of 2 that changes by a quarter is none.
    change = compare_errors([2] * 6, [1.5, 1, 2.5, 3, 3, 2], tolerance=0.25)
    assert (change.gained, change.lost) == (1, 2)


def compute_rmse(sums: Floats) -> Floats:
    return np.asarray(np.sqrt(sums[:, :1] / sums[:, 1:]))


def compute_rmse_gain(sums: Floats) -> Floats:
    first, second = (np.sqrt(sums[:, [side]] / sums[:, [2]]) for side in (0, 1))
    return np.asarray((first - second) / first)


@pytest.mark.parametrize("is_better", [True, False])
@pytest.mark.parametrize("seed", [0, 3])
def test_numbers_are_compared_relative_to_the_champion(is_better: bool, seed: int) -> None:
    random = np.random.default_rng(5)
    errors = random.normal(size=160), random.normal(size=160) * 0.85
    first, second = errors if is_better else errors[::-1]
    change = compare_errors(first, second, alpha=0.1, seed=seed)
    before, after = (float(np.sqrt((side**2).mean())) for side in (first, second))
    assert change.metric == MetricDefinition("rmse", False)
    assert (change.samples, change.needed) == (160, 150)
    assert (change.first, change.second) == pytest.approx((before, after))
    assert change.difference == pytest.approx((before - after) / before)
    assert (change.difference > 0) == is_better
    # Each end of an interval of 80 % is exceeded with 10 %; the same draws give the same end.
    rows = np.stack([first**2, second**2, np.ones(160)], 1)
    interval = bootstrap_intervals(rows, compute_rmse_gain, confidence=0.8, seed=seed)
    assert change.low == pytest.approx(float(interval.low[0]))
    squares = [np.stack([side**2, np.ones(160)], 1) for side in (first, second)]
    tests = run_permutation_test, compute_skewed_p
    p = max(float(test(squares[0], squares[1], compute_rmse, seed=seed)[0]) for test in tests)
    assert 0.01 < p < 0.99
    # Skewed errors are on one side, which gets all of the p-value.
    assert change.p_better == pytest.approx(p if is_better else 1 - p / 2)


@pytest.mark.parametrize("n", [150, 151])
def test_a_model_that_is_the_same_is_not_better(n: int) -> None:
    unchanged, steady = compare_errors(np.arange(n), np.arange(n)), compare_errors(np.full(n, 2.0), np.full(n, 1.0))
    assert unchanged.p_better == 0.5
    assert steady.p_better < 0.001


def test_shares_are_compared_as_they_are() -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(1, 5, 30), random.integers(4, 9, 30)
    change = compare_overall(MASKS, pair_overlaps(first, second), alpha=0.05, tolerance=0.5)
    assert change.metric.name == "miou"
    # Of all pixels together.
    assert change.first == pytest.approx(first.sum() / 240)
    assert change.difference == pytest.approx((second.sum() - first.sum()) / 240)
    assert 0 < change.low < change.difference
    assert change.p_better < 0.01
    assert (change.gained, change.lost) == (int((second - first > 4).sum()), 0)


@pytest.mark.parametrize(("n", "is_certain"), [(9, False), (10, True), (11, True)])
def test_where_all_draws_are_equal_the_end_is_the_difference(n: int, is_certain: bool) -> None:
    unchanged = compare_errors(np.arange(n), np.arange(n))
    steady = compare_errors(np.full(n, 2.0), np.full(n, 1.0))
    assert (unchanged.difference, steady.difference) == (0, 0.5)
    assert unchanged.p_better == steady.p_better == 1  # too few for a verdict
    for change in (unchanged, steady):
        assert change.low == change.difference if is_certain else math.isnan(change.low)


def test_an_infinite_loss_is_undecided() -> None:
    nats = np.arange(1.0, 21)
    sides = [{"loss": losses, "nats": losses, "tokens": np.ones(20)} for losses in (nats, nats.copy())]
    sides[1]["nats"][3] = np.inf
    change = compare_overall(get_task_type("language"), pair(sides), alpha=0.05, tolerance=0.1)
    assert change.second == math.inf
    assert change.p_better == 1
    assert not change.low >= -0.03


@pytest.mark.parametrize("is_number", [False, True])
def test_what_helps_a_few_users_is_not_proven_better(is_number: bool) -> None:
    promoted: dict[str, int] = {"clean": 0, "without groups": 0, "better": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(20.0), 30)
        # Each user is helped or harmed by the challenger, by as much on average.
        change = rng.normal(0, 0.2, 20)[groups.astype(int)]

        def compare(gain: float, by_group: bool, change: Any = change, groups: Any = groups, rng: Any = rng) -> bool:
            chance = np.clip(0.6 + change + gain, 0, 1)
            if is_number:
                columns, task_type = pair_errors(1 + rng.random(600), 1 + rng.random(600) - change - gain), NUMBERS
            else:
                sides = [rng.random(600) < share for share in (0.6, chance)]
                zeros = np.zeros(600, np.int64)
                columns = pair([{"truth": zeros, "predicted": np.where(side, 0, 1)} for side in sides])
                task_type = CLASSES
            given = groups if by_group else None
            found = compare_overall(task_type, columns, alpha=0.05, tolerance=0.05, groups=given)
            assert found.groups == (20 if by_group else 0)
            return found.p_better <= 0.05

        promoted["clean"] += compare(0, True)
        promoted["without groups"] += compare(0, False)
        promoted["better"] += compare(0.25, True)
    assert promoted["clean"] <= 6 < promoted["without groups"], promoted
    assert promoted["better"] >= 54, promoted
