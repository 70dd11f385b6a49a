"""What the samples of the same users are worth, against the variance that their means really have."""

import numpy as np
import pytest

from mlscale.stats.design_effect import estimate_dependence, estimate_group_time


def draw(users: int, n: int, rho: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, users, n)
    return np.sqrt(rho) * rng.normal(size=users)[groups] + np.sqrt(1 - rho) * rng.normal(size=n), groups


@pytest.mark.parametrize(("users", "rho"), [(20, 0.5), (100, 0.5), (100, 0.1)])
def test_the_variance_of_means_is_that_of_fewer_samples(users: int, rho: float) -> None:
    drawn = [draw(users, 1000, rho, seed) for seed in range(200)]
    true = 1000 * np.var([scores.mean() for scores, _ in drawn])
    found = np.array([estimate_group_time(*each) for each in drawn])
    assert 1 <= np.median(found) / true <= 2  # two standard errors more
    assert (found > 0.7 * true).mean() > 0.9


def test_independent_samples_lose_little() -> None:
    found = [estimate_group_time(*draw(50, 1000, 0, seed)) for seed in range(100)]
    assert np.median(found) < 1.3
    assert max(found) < 3


def test_edges() -> None:
    scores = np.arange(10.0)
    assert estimate_group_time(scores, np.arange(10)) == 1  # each of its own
    assert estimate_group_time(scores, np.zeros(10, np.int64)) == 10
    assert estimate_group_time(np.ones(10), np.arange(10) // 2) == 1
    assert estimate_group_time(np.zeros(0), np.zeros(0, np.int64)) == 1
    # Users that are constant, and differ: worth as many as there are users, or fewer.
    assert 50 <= estimate_group_time(np.repeat(np.arange(20.0), 50), np.repeat(np.arange(20), 50)) <= 100


def test_memory_and_groups_are_not_counted_twice() -> None:
    scores, groups = draw(20, 1000, 0.5, 1)
    order = np.argsort(groups, kind="stable")
    memory, both = (estimate_dependence(scores[order], of) for of in (None, groups[order]))
    assert both == pytest.approx(max(memory, estimate_group_time(scores, groups)))
