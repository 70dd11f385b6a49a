"""Kolmogorov and Smirnov's test against scipy's, and how often it cries wolf."""

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstwo

from mlscale.stats.ks import run_ks_test


@pytest.mark.parametrize(("m", "n"), [(5, 3), (40, 300), (360, 360), (10_000, 500)])
@pytest.mark.parametrize("shift", [0.0, 0.2, 2.0])
@pytest.mark.parametrize("digits", [1, 12])  # one digit: many values are tied
def test_it_says_what_scipy_says(m: int, n: int, shift: float, digits: int) -> None:
    generator = np.random.default_rng(m + n)
    reference = generator.normal(size=m).round(digits)
    sample = (shift + generator.normal(size=n)).round(digits)
    found, expected = (
        run_ks_test(np.sort(reference), sample),
        ks_2samp(reference, sample, method="exact" if m * n <= 10_000 else "asymp"),
    )
    assert found.distance == pytest.approx(expected.statistic, abs=1e-15)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)


def test_the_same_and_the_utterly_different() -> None:
    numbers = np.arange(100.0)
    assert (run_ks_test(numbers, numbers[::-1]).distance, run_ks_test(numbers, numbers).p) == (0.0, 1.0)
    for other in (numbers + 200, numbers - 200, np.full(100, np.nan)):
        assert run_ks_test(numbers, other).distance == 1.0
        assert run_ks_test(numbers, other).p < 1e-50


def test_nothing_can_not_be_compared() -> None:
    with pytest.raises(ValueError, match="numbers on both sides"):
        run_ks_test(np.arange(3.0), np.array([]))


def test_false_alarms_are_as_frequent_as_stated() -> None:
    generator = np.random.default_rng(0)
    reference = np.sort(generator.normal(size=20_000))
    p = np.array([run_ks_test(reference, generator.normal(size=200)).p for _ in range(2_000)])
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 2_000))


@pytest.mark.parametrize(("m", "n", "exact"), [(100, 100, True), (100, 101, False), (10_000, 1, True)])
def test_few_pairs_have_the_exact_p_value(m: int, n: int, exact: bool) -> None:
    generator = np.random.default_rng(m + n)
    reference, sample = np.sort(generator.normal(size=m)), 0.3 + generator.normal(size=n)
    methods = {name: ks_2samp(reference, sample, method=name).pvalue for name in ("exact", "asymp")}
    found = run_ks_test(reference, sample).p
    assert found == pytest.approx(methods["exact" if exact else "asymp"], rel=1e-9)
    assert methods["exact"] != pytest.approx(methods["asymp"], rel=1e-6)


@pytest.mark.parametrize("lost", [1, 2, 4])
def test_what_is_no_number_is_larger_than_all(lost: int) -> None:
    """Few pairs, which the exact test would answer by NaN."""
    numbers = np.arange(4.0)
    sample = np.array([0.0, 1, 2, 3])
    sample[:lost] = np.nan
    assert run_ks_test(numbers, sample).distance == lost / 4
    found = run_ks_test(np.sort(sample), numbers)
    assert found.distance == lost / 4
    assert found.p == pytest.approx(kstwo.sf(lost / 4, 2))
    assert run_ks_test(numbers, sample).p == found.p


def test_samples_are_lists_of_numbers() -> None:
    for reference, sample in ((np.ones((2, 2)), np.ones(2)), (np.ones(2), np.ones((2, 2))), (np.ones(0), np.ones(2))):
        with pytest.raises(ValueError, match="numbers on both sides"):
            run_ks_test(reference, sample)


def test_the_effective_size_is_one_at_least() -> None:
    assert run_ks_test(np.array([0.0, np.nan]), np.array([0.0])).p == kstwo.sf(0.5, 1) == 1
