"""Metrics and their differences, as sentences show them, and the tests of two models by them."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.task_types.paired_metrics import MetricDefinition, compute_difference_p
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import TaskType

Floats = NDArray[np.float64]
NUMBERS = get_task_type("regression")


@pytest.mark.parametrize(
    ("definition", "difference", "shown"),
    [
        (MetricDefinition("accuracy", True, True), -0.0255, "-2.55%"),
        (MetricDefinition("accuracy", True, True), 0.0, "+0.00%"),
        # Of an error a sign would be read as that of the error.
        (MetricDefinition("rmse", False), -0.0255, "2.55% worse"),
        (MetricDefinition("rmse", False), 0.0255, "2.55% better"),
        (MetricDefinition("bits_per_byte", False), 0.0, "unchanged"),
    ],
)
def test_a_difference_shows_which_way_it_goes(definition: MetricDefinition, difference: float, shown: str) -> None:
    assert definition.describe_difference(difference) == shown


def compare_errors(first: Floats, second: Floats, task_type: TaskType = NUMBERS) -> float:
    sides = [{"predicted": errors[:, None], "truth": np.zeros((len(errors), 1))} for errors in (first, second)]
    paired = task_type.build_paired_statistics(*sides)
    return float(compute_difference_p(paired, task_type.fewest_compared, seed=0)[0])


def draw_outliers(rng: np.random.Generator, n: int, times: float) -> Floats:
    """Errors with an RMSE of 1, of which one in twenty is larger."""
    errors = rng.normal(size=n) * np.where(rng.random(n) < 0.05, times, 1)
    return np.asarray(errors / np.sqrt(0.95 + 0.05 * times**2))


def draw_heavy_tails(rng: np.random.Generator, n: int) -> Floats:
    """Errors of Student's t with 3 degrees of freedom, with an RMSE of 1."""
    return np.asarray(rng.standard_t(3, n) / np.sqrt(3))


@pytest.mark.parametrize("n", [12, 20, 149])
def test_few_errors_are_undecided(n: int) -> None:
    assert np.isnan(compare_errors(np.ones(n), np.zeros(n)))


@pytest.mark.parametrize("draw", [partial(draw_outliers, times=10), draw_heavy_tails], ids=["outliers", "heavy tails"])
@pytest.mark.parametrize("n", [150, 300])
def test_equal_errors_of_another_shape_are_seldom_better(n: int, draw: Callable[..., Floats]) -> None:
    # By the permutation test alone 19 % of the outliers are better with 150 samples, 15 % with 300.
    rng = np.random.default_rng(36)
    p = [compare_errors(rng.normal(size=n), draw(rng, n)) for _ in range(100)]
    assert np.mean(np.array(p) <= 0.05) <= 0.07


def test_a_better_model_is_better() -> None:
    rng = np.random.default_rng(8)
    p = [compare_errors(rng.normal(size=160), 0.7 * rng.normal(size=160)) for _ in range(40)]
    assert np.mean(np.array(p) <= 0.05) >= 0.8


def test_shares_need_no_number_of_samples() -> None:
    hits = [np.full((12, 1), value) for value in (2, 6)]
    sides = [
        {"hit": hit, "predicted": np.full((12, 1), 8), "true": np.full((12, 1), 8), "loss": hit[:, 0]} for hit in hits
    ]
    miou, _, loss = compute_difference_p(get_task_type("segmentation").build_paired_statistics(*sides), 60, seed=0)
    assert miou < 0.01
    assert np.isnan(loss)
