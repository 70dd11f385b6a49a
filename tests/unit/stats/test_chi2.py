"""Pearson's test against scipy's, rare classes, and how often it cries wolf."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from mlscale.stats.chi2 import run_chi2_test


def test_it_says_what_scipy_says() -> None:
    reference, counts = np.array([90, 110, 160]), np.array([30, 60, 210])
    found = run_chi2_test(reference, counts)
    assert found.p == pytest.approx(chi2_contingency([reference, counts], correction=False).pvalue)
    assert found.distance == pytest.approx(np.abs(reference / 360 - counts / 300).sum() / 2)
    assert found.cells == 3


def test_rare_classes_are_pooled_until_each_cell_can_expect_five() -> None:
    reference, counts = np.array([500, 1, 2, 400, 3, 0]), np.array([260, 1, 0, 190, 0, 9])
    found = run_chi2_test(reference, counts)
    pooled = [[500, 400, 6], [260, 190, 10]]
    assert found.cells == 3
    assert found.p == pytest.approx(chi2_contingency(pooled, correction=False).pvalue)


@pytest.mark.parametrize("counts", [[5, 0, 0], [3, 1, 1]])
def test_too_little_to_compare_is_no_find(counts: list[int]) -> None:
    found = run_chi2_test(np.array([100, 5, 5]), np.array(counts))
    assert (found.p, found.cells) == (1.0, 1)


def test_one_class_instead_of_another_is_the_largest_distance() -> None:
    found = run_chi2_test(np.array([100, 0]), np.array([0, 100]))
    assert found.distance == 1.0
    assert found.p < 1e-20


def test_nothing_can_not_be_compared() -> None:
    with pytest.raises(ValueError, match="counts on both sides"):
        run_chi2_test(np.array([0, 0]), np.array([1, 2]))


@pytest.mark.parametrize("window", [60, 300, 10_000])
def test_false_alarms_are_as_frequent_as_stated(window: int) -> None:
    """Also where the reference is much smaller than the window; its proportions are not the truth."""
    generator = np.random.default_rng(window)
    truth = np.array([0.3, 0.2, 0.2, 0.15, 0.1, 0.03, 0.015, 0.005])
    pairs = [(generator.multinomial(360, truth), generator.multinomial(window, truth)) for _ in range(1_000)]
    rate = np.mean([run_chi2_test(*pair).p <= 0.05 for pair in pairs])
    assert rate == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 1_000))


@pytest.mark.parametrize(("rare", "cells"), [(5, 2), (4, 1)])
def test_five_are_enough_for_a_cell(rare: int, cells: int) -> None:
    sides = np.array([50 - rare, rare])
    assert run_chi2_test(sides, sides).cells == cells


@pytest.mark.parametrize("wrong", [-0.5, -1.0, np.nan, np.inf])
def test_counts_are_not_negative_and_finite(wrong: float) -> None:
    for sides in (([1.0, wrong], [1.0, 2.0]), ([1.0, 2.0], [1.0, wrong])):
        with pytest.raises(ValueError, match="none of them negative, infinite or NaN"):
            run_chi2_test(np.array(sides[0]), np.array(sides[1]))
