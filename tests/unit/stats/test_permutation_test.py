"""Two models that are exchanged on every sample: as scipy has it, exact for few samples, as seldom wrong as stated."""

import numpy as np
import pytest
from scipy import stats

from mlscale.stats.permutation_test import Floats, compute_skewed_p, run_permutation_test


def mean(sums: Floats) -> Floats:
    return sums[:, :1] / sums[:, 1:]


def rows(values: Floats) -> Floats:
    return np.stack([values, np.ones(len(values))], 1)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_few_samples_as_scipy_has_it(n: int) -> None:
    rng = np.random.default_rng(n)
    for _ in range(5):
        first, second = np.round(rng.normal(size=(2, n)) * 3) / 3  # some are tied
        (ours,) = run_permutation_test(rows(first), rows(second), mean)
        theirs = stats.permutation_test(
            (first, second), lambda a, b: np.mean(a) - np.mean(b), permutation_type="samples", n_resamples=10_000
        )
        both = abs(theirs.null_distribution) >= abs(theirs.statistic) - 1e-9
        assert ours == pytest.approx(both.mean())


def test_one_sample_shows_nothing_and_six_may() -> None:
    for n, p in ((1, 1.0), (2, 0.5), (5, 0.0625), (6, 0.03125)):
        assert run_permutation_test(rows(np.ones(n)), rows(np.zeros(n)), mean) == pytest.approx([p])


def test_many_samples_as_the_t_test_has_it() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=400)
    second = first + rng.normal(0.05, 0.5, 400)
    (ours,) = run_permutation_test(rows(first), rows(second), mean, draws=5000)
    assert ours == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.02)
    (sure,) = run_permutation_test(rows(first), rows(first + 1), mean, draws=999)
    assert sure == 1 / 1000
    assert run_permutation_test(rows(first), rows(first), mean) == pytest.approx([1])


@pytest.mark.parametrize(("n", "total"), [(7, 128), (8, 201)])
def test_more_ways_than_draws_are_drawn(n: int, total: int) -> None:
    first = np.arange(float(n))
    second = first + np.resize([1.0, -1.0, 0.5], n)
    (p,) = run_permutation_test(rows(first), rows(second), mean, draws=200)
    assert p * total == pytest.approx(round(p * total), abs=1e-9)
    assert 0.1 < p < 1


@pytest.mark.parametrize("n", [20, 4000])
def test_the_draws_are_as_many_and_as_large_as_stated(n: int) -> None:
    seen: list[tuple[int, float]] = []

    def note_sums(sums: Floats) -> Floats:
        seen.append((len(sums), float(sums[:, 1].min())))
        return mean(sums)

    first, second = np.random.default_rng(0).normal(size=(2, n))
    (p,) = run_permutation_test(rows(first), rows(second), note_sums, draws=1200)
    # Both sides of each draw, after the two sums that were seen.
    assert sum(count for count, _ in seen[2:]) == 2 * 1200
    # A matrix of draws and samples has at most two million numbers.
    assert max(count for count, _ in seen) * n <= 2_000_000
    assert {samples for _, samples in seen} == {n}
    assert p * 1201 == pytest.approx(round(p * 1201), abs=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_does_not_matter(scale: float) -> None:
    first, second = np.random.default_rng(1).normal(size=(2, 9)).round(1)
    p = run_permutation_test(rows(first), rows(second), mean)
    assert run_permutation_test(rows(first * scale), rows(second * scale), mean) == p
    assert 0.05 < p[0] < 0.95


def test_each_metric_has_its_own_p_value() -> None:
    def statistic(sums: Floats) -> Floats:
        return np.stack([sums[:, 0], sums[:, 1], sums[:, 0] * 0], 1)

    one, two = np.stack([np.ones(6), np.zeros(6)], 1), np.stack([np.zeros(6), np.arange(6) % 2], 1)
    assert run_permutation_test(one, two, statistic).tolist() == [2 / 64, 16 / 64, 1]


def test_as_seldom_wrong_as_stated() -> None:
    rng = np.random.default_rng(0)
    p = [run_permutation_test(rows(a), rows(b), mean, draws=199)[0] for a, b in rng.exponential(size=(300, 2, 8))]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 0.04
    big = rng.normal(size=(2, 12_000))
    assert 0 < run_permutation_test(rows(big[0]), rows(big[1]), mean, draws=99)[0] <= 1


def test_what_is_not_defined_is_nan() -> None:
    def statistic(sums: Floats) -> Floats:
        return np.stack([sums[:, 0], np.full(len(sums), np.nan)], 1)

    p = run_permutation_test(rows(np.ones(8)), rows(np.zeros(8)), statistic)
    assert p[0] == pytest.approx(2 / 2**8)
    assert np.isnan(p[1])
    endless = np.ones(8)
    endless[3] = np.inf
    assert np.isnan(run_permutation_test(rows(endless), rows(np.zeros(8)), mean)).all()


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), "the same samples"),
        (np.zeros((3, 2)), np.zeros((4, 2)), "the same samples"),
        (np.zeros(3), np.zeros(3), "the same samples"),
        (np.full((3, 2), np.nan), np.zeros((3, 2)), "NaN"),
        (np.zeros((3, 2)), np.array([[0, 0], [0, np.nan], [0, 0]]), "NaN"),
        (np.array([[0, np.nan], [0, 0]]), np.zeros((2, 2)), "NaN"),
    ],
)
def test_what_can_not_be_swapped_is_refused(first: Floats, second: Floats, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        run_permutation_test(first, second, mean)


def test_the_skewed_test_is_that_of_its_formula() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.exponential(size=(2, 40))
    (p,) = compute_skewed_p(rows(first), rows(second), mean)
    # Of a mean the pseudo-values are the differences; the one that is most against the better model counts three times.
    gaps = (first - second) * np.sign(np.mean(first - second))
    gaps = np.append(gaps, [gaps.min()] * 2)
    t, skew = gaps.mean() / gaps.std() * np.sqrt(40), stats.skew(gaps) / np.sqrt(42)
    assert p == pytest.approx(2 * stats.norm.sf(((1 + skew * t / 3) ** 3 - 1) / skew + skew / 6))


def test_the_skewed_test_without_a_difference_and_with_an_infinite_one() -> None:
    same, more = np.ones(8), np.full(8, 2.0)
    assert compute_skewed_p(rows(same), rows(same), mean).tolist() == [1]
    assert compute_skewed_p(rows(same), rows(more), mean) == pytest.approx([0])
    more[3] = np.inf
    assert np.isnan(compute_skewed_p(rows(more), rows(same), mean)).all()
