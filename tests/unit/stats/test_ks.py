"""The p-values of the Kolmogorov–Smirnov test against scipy's, and how often they raise a false alarm."""

import math

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstwo

from mlscale.stats.ks import compute_exact_ks_p, compute_ks_p


def test_random_cases_are_as_scipy_computes_them() -> None:
    random = np.random.default_rng(np.random.SeedSequence().entropy)
    for _ in range(100):
        m, n = (int(10 ** random.uniform(2, 4)) for _ in range(2))
        size = m * n / (m + n)
        # Distances as they happen, up to a chance of one in a billion.
        distance = random.uniform(0.5, 3.2) / np.sqrt(size)
        # Two samples are worth a fraction of a sample more than `math.floor` has: the truth is between the two.
        least, most = (kstwo.sf(distance, whole(size)) for whole in (math.ceil, math.floor))
        p = float(compute_ks_p(distance, m, n))
        # Never much smaller; of a chance of one in a billion the digits mean nothing.
        assert 0.9 * least < p < (1.2 - 0.04 * np.log(most)) * most, (m, n, distance)


@pytest.mark.parametrize("size", [8, 10])
def test_small_sizes_are_nearly_exact(size: int) -> None:
    for expected in (0.7, 0.3, 0.1):
        distance = kstwo.isf(expected, size)
        assert float(compute_ks_p(distance, size, 1e12)) == pytest.approx(expected, rel=0.0075)
        # Two samples are worth as much as one of mn / (m + n).
        assert float(compute_ks_p(distance, 2 * size, 2 * size)) == pytest.approx(expected, rel=0.0075)


def test_all_at_once() -> None:
    p = compute_ks_p(np.array([0.0, 0.1, 1.0]), 1000, 1000)
    assert p[0] == 1
    assert p[1] == pytest.approx(ks_2samp(np.arange(1000), np.arange(1000) + 100, method="asymp").pvalue, rel=0.1)
    assert p[2] < 1e-100


def test_few_numbers_are_no_proof() -> None:
    assert compute_ks_p(1.0, 3, 2) > 0.005
    assert compute_exact_ks_p(np.arange(3.0), np.arange(5.0) + 10) == pytest.approx(2 / 56)


@pytest.mark.parametrize("sides", [(0, 3), (3, 0)])
def test_nothing_can_not_be_compared(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="numbers on both sides"):
        compute_exact_ks_p(np.arange(float(sides[0])), np.arange(float(sides[1])))


def test_false_alarms_are_as_frequent_as_stated() -> None:
    random = np.random.default_rng(0)
    uniform = np.sort(random.uniform(size=(2000, 200)), 1)
    grid = np.arange(201) / 200
    distance = np.maximum(abs(uniform - grid[:-1]).max(1), abs(uniform - grid[1:]).max(1))
    p = compute_ks_p(distance, 200, 1e12)
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 2_000))
