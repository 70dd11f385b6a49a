"""The test of exceedances against scipy's hypergeometric distribution, and its false alarms."""

import numpy as np
import pytest
from scipy.special import binom
from scipy.stats import fisher_exact, hypergeom

from mlscale.stats.exceedances import compute_exceedance_p


def test_random_cases_are_as_scipy_computes_them() -> None:
    random = np.random.default_rng(np.random.SeedSequence().entropy)
    seen = 0
    for _ in range(300):
        n, m = (int(10 ** random.uniform(1, 4)) for _ in range(2))
        k = int(random.integers(0, max(1, m // 20) + 1))
        j = int(min(n, (k + 1) * n / m * random.uniform(1, 4) + random.integers(0, 20)))
        expected = hypergeom.sf(j - 1, m + n, n, k + j)
        found = float(compute_exceedance_p(j, n, k, m))
        if expected < 0.01:
            seen += 1
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-300), (j, n, k, m)
        else:
            assert found >= expected * 0.98, (j, n, k, m)
    assert seen > 50


def test_most_of_both_sides_may_exceed() -> None:
    assert float(compute_exceedance_p(3110, 8670, 1, 16)) == pytest.approx(hypergeom.sf(3109, 8686, 8670, 3111))


@pytest.mark.parametrize(
    ("n", "k", "m"), [(100, 10, 200), (40, 0, 60), (3, 1, 4), (30, 25, 30), (1, 0, 500), (2, 0, 8), (2, 0, 2)]
)
def test_counts_of_two_standard_errors_and_more_are_tested(n: int, k: int, m: int) -> None:
    tested = 0
    for j in range(n + 1):
        # Of all that exceed, so many are expected on this side, with the variance of draws without replacement.
        share, every = (j + k) / (m + n), m + n
        variance = n * share * (1 - share) * (every - n) / (every - 1)
        excess = j - n * share
        is_tested = excess > 0 and excess**2 >= 4 * variance * (1 - 1e-12)
        tested += is_tested
        found = float(compute_exceedance_p(j, n, k, m))
        expected = hypergeom.sf(j - 1, every, j + k, n) if is_tested else 1
        assert found == pytest.approx(expected), j
    assert tested or (n, m) in ((3, 4), (2, 2))


@pytest.mark.parametrize(
    ("j", "n", "k", "m"), [(9.5, 10, 0.5, 40), (4.25, 4.5, 0, 30.5), (6.5, 20.25, 0.25, 200), (1.5, 1.75, 0, 60)]
)
def test_fractions_have_the_terms_that_are_possible(j: float, n: float, k: float, m: float) -> None:
    counts = j + np.arange(int(n - j) + 1)
    counts = counts[counts <= j + k]
    expected = (binom(n, counts) * binom(m, j + k - counts)).sum() / binom(n + m, j + k)
    assert float(compute_exceedance_p(j, n, k, m)) == pytest.approx(expected, rel=1e-9)


def test_next_to_no_samples_are_no_evidence() -> None:
    for sides in ((0, 0, 0, 1), (0.5, 0.5, 0, 0.5), (1, 1, 0, 1), (0, 5, 0, 5), (5, 5, 5, 5), (0, 3, 5, 5)):
        assert float(compute_exceedance_p(*sides)) == 1, sides


def test_it_is_fishers_test() -> None:
    expected = fisher_exact([[30, 70], [10, 190]], alternative="greater").pvalue
    assert float(compute_exceedance_p(30, 100, 10, 200)) == pytest.approx(expected)


def test_many_at_once_and_fractions() -> None:
    p = compute_exceedance_p(np.array([0.0, 5.0, 40.5]), 100.5, 3.3, 200.0)
    assert p.shape == (3,)
    assert p[0] == 1
    assert p[2] < 1e-9


@pytest.mark.parametrize(("m", "k"), [(30, 0), (300, 2)])
def test_false_alarms_of_small_references(m: int, k: int) -> None:
    random = np.random.default_rng(0)
    reference = np.sort(random.normal(size=(3000, m)), 1)[:, m - 1 - k]
    counts = (random.normal(size=(3000, 200)) > reference[:, None]).sum(1)
    p = compute_exceedance_p(counts, 200, k, m)
    for level in (0.01, 0.001):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level / 3000)
