"""Tests of a column of numbers: the statistics of its window, and the p-value, the size and the condition of each."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp, mood, norm

from mlscale.monitor.drift.column_drift import ColumnDrift
from mlscale.monitor.drift.number_tests import (
    _SHARES,
    NumberWindow,
    _compute_function_p,
    _compute_spread_p,
    compare_number_column,
)
from mlscale.reference.column_sketch import NumberSketch, build_number_sketch
from mlscale.stats.autocorrelation import estimate_correlation_time
from mlscale.stats.exceedances import compute_exceedance_p
from mlscale.stats.ks import compute_ks_p

Floats = NDArray[np.float64]


def build_sketch(values: Any, effective: float | None = None, missing: int = 0) -> NumberSketch:
    """A sketch that has all values; each is worth an independent one unless an effective size is given."""
    ordered = np.sort(np.asarray(values, np.float64))
    known = len(ordered)
    return NumberSketch("input.a", "inputs", "m", known + missing, missing, ordered, effective or known)


def measure(sketch: NumberSketch, values: Any) -> NumberWindow:
    window, _ = compare_number_column(sketch, np.asarray(values, np.float64), "a")
    assert window is not None
    return window


def compare(sketch: NumberSketch, values: Any) -> dict[str, ColumnDrift]:
    _, results = compare_number_column(sketch, np.asarray(values, np.float64), "a")
    return {result.kind: result for result in results}


def draw(n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=n)


HUNDRED = build_sketch(np.arange(100))


# The statistics of a window.


@pytest.mark.parametrize(
    ("values", "median"), [([3], 3), ([4, 1], 2.5), ([9, 1, 2], 2), ([8, 1, 2, 4], 3), ([5, 1, 2, 4, 3], 3)]
)
def test_the_median(values: list[float], median: float) -> None:
    assert measure(HUNDRED, values).median == median


def test_the_shift_is_in_standard_deviations() -> None:
    sketch = build_sketch([1, 1, 3, 3])
    assert measure(sketch, [2.5, 3.5]).shift == 1
    assert measure(sketch, [1, 1.5]).shift == -0.75
    constant = build_sketch([2, 2, 2])
    assert [measure(constant, [value]).shift for value in (2, 3, 1)] == [0, math.inf, -math.inf]


def test_values_beyond_those_of_the_sketch_are_counted() -> None:
    window = measure(build_sketch([10, 20, 20, 30, 40]), [5, 10, 15, 20, 35, 40, 41, 42, np.nan])
    assert [window.count_outside(index) for index in range(3)] == [(1, 2), (3, 4), (3, 4)]
    below, up_to = window.counts
    assert (below.tolist(), up_to.tolist()) == ([1, 3, 3, 4, 5], [2, 4, 4, 4, 6])


def test_the_distance_is_that_of_the_distribution_functions() -> None:
    random = np.random.default_rng(1)
    for seed in range(40):
        digits = seed % 4
        reference = random.normal(size=seed + 2).round(digits)
        for values in (random.normal(size=30).round(digits), draw(9) + 1, draw(9) - 1, draw(20) * 0.1, draw(20) * 10):
            distance = measure(build_sketch(reference), values).distance
            assert distance == pytest.approx(ks_2samp(reference, values).statistic, abs=1e-12)


def test_the_distance_from_a_part_of_a_reference_is_that_of_its_ranks() -> None:
    # Ranks 0, 13, 26 and 39: as many are between two values.
    part = NumberSketch("input.a", "inputs", "", 40, 0, np.arange(4.0), 40)
    given = {0: 39 / 40, 1: 26 / 40, 2: 26 / 40, 3: 39 / 40, -1: 1, 4: 1, 0.5: 27 / 40, 2.5: 27 / 40}
    for value, distance in given.items():
        assert measure(part, [value] * 3).distance == pytest.approx(distance)


@pytest.mark.parametrize(("median", "share"), [(4.5, 0), (6.5, 0.2), (2.5, 0.2), (4.6, 0.1), (20, 1), (-20, 1)])
def test_the_share_that_leaves_the_range_by_the_shift_alone(median: float, share: float) -> None:
    assert measure(build_sketch(range(10)), [median]).compute_moved_share() == share


def smooth(values: Floats) -> Floats:
    return np.convolve(values, np.ones(8) / 8, "valid")


def test_the_memory_of_a_column_does_not_depend_on_its_outliers() -> None:
    values = smooth(draw(1007))
    values[::40] *= 100  # 25 of 1,000
    window = measure(HUNDRED, values)
    ordered = np.sort(values)
    # Five percent on each side are drawn in.
    assert window.correlation_time == estimate_correlation_time(np.clip(values, ordered[49], ordered[950])) > 5
    assert window.effective == pytest.approx(1000 / window.correlation_time)
    assert estimate_correlation_time(values) < 2


@pytest.mark.parametrize("rare", [1.0, np.inf])
def test_the_memory_of_a_column_that_is_mostly_one_value(rare: float) -> None:
    values = np.where(np.arange(1000) % 250 < 6, rare, 0)
    assert measure(HUNDRED, values).correlation_time == estimate_correlation_time((values > 0).astype(float)) > 3
    # A tenth of the values are infinite: there is no end to draw them in to.
    endless = np.where(np.arange(1000) // 10 % 10 == 0, np.inf, draw(1000))
    for sign in (1, -1):
        above = sign * endless > np.median(sign * endless)
        assert measure(HUNDRED, sign * endless).correlation_time == estimate_correlation_time(above.astype(float))


def test_missing_values_are_left_out() -> None:
    window, results = compare_number_column(HUNDRED, np.array([np.nan, 5, np.nan, 4]), "a")
    assert window is not None
    assert window.values.tolist() == [5, 4]
    assert window.ordered.tolist() == [4, 5]
    assert [result.kind for result in results] == ["missing", "distribution"]
    # A share of 0.04 of the column's budget.
    (found, _) = compare_number_column(HUNDRED, np.append(np.full(3, np.nan), np.arange(47)), "a")[1]
    assert found.p == pytest.approx(float(compute_exceedance_p(3, 50, 0, 100)) / 0.04)
    for sketch, sample in ((HUNDRED, [np.nan, np.nan]), (build_sketch([], 1e-9, missing=4), [1.0, np.nan])):
        window, results = compare_number_column(sketch, np.array(sample), "a")
        assert window is None
        assert [result.kind for result in results] == ["missing"]


# The distribution.


def compute_rank_p(reference: Floats, window: NumberWindow, effective: float) -> float:
    """The rank-sum test by all pairs, with the variance of effective sizes, which is smaller where values are tied."""
    larger = np.sign(window.values[:, None] - reference[None]).mean() / 2
    _, ties = np.unique(reference, return_counts=True)
    factor = 1 - (ties**3).sum() / len(reference) ** 3
    m, n = effective, window.effective
    return 2 * float(norm.sf(abs(larger) / math.sqrt(factor * (1 / m + 1 / n + 1 / (m * n)) / 12)))


@pytest.mark.parametrize("effective", [200, 100])
@pytest.mark.parametrize("digits", [9, 0])
def test_a_shift_is_tested_by_ranks(effective: float, digits: int) -> None:
    reference, values = draw(200).round(digits), (draw(150, 1) + 0.2).round(digits)
    sketch = build_sketch(reference, effective)
    window, found = measure(sketch, values), compare(sketch, values)["distribution"]
    p = compute_rank_p(reference, window, effective)
    assert 0 < p < float(compute_ks_p(window.distance, effective, window.effective))
    # Ranks and the distribution function have a share of the budget each.
    assert found.p == pytest.approx(min(1, p / _SHARES["location"], _compute_spread_p(window, 0) / _SHARES["spread"]))
    assert (found.before, found.now) == (sketch.median, window.median)
    assert (found.distance, found.shift, found.effective) == (window.distance, window.shift, window.effective)
    assert (found.name, found.label) == ("input.a", "a")


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_change_of_the_deviation_by_a_fifth_is_tested_by_ranks_from_the_middle(factor: float) -> None:
    reference = draw(5000)
    sketch, values = build_sketch(reference), draw(1000, 1) * factor
    window, found = measure(sketch, values), compare(sketch, values)["distribution"]
    assert found.p == pytest.approx(_compute_spread_p(window, 0) / _SHARES["spread"], rel=1e-3)
    # Mood's test has the ranks of both samples together: those of the reference alone differ little.
    assert math.log(_compute_spread_p(window, 0)) == pytest.approx(math.log(mood(values, reference).pvalue), rel=0.15)
    assert found.p < 1e-5


@pytest.mark.parametrize(
    ("factor", "by", "words"),
    [
        (2.0, 0.02, "a has 2 times the spread"),
        (0.5, -0.1, "a has 0.49 times the spread"),
        (2.0, 0.5, "higher by 0.47"),
        (1, 0.2, "higher"),
    ],
)
def test_a_change_of_the_spread_is_called_one(factor: float, by: float, words: str) -> None:
    found = compare(build_sketch(draw(2_000)), by + draw(1_000, 1) * factor)
    kind = "distribution" if "distribution" in found else "tails"
    assert words in found[kind].format_change()


def test_the_p_value_of_a_deviation_holds() -> None:
    """One of a hundred clean windows has a p-value of the test below a hundredth, with ties and without."""
    for digits in (9, 0):
        reference = build_sketch(draw(2000).round(digits))
        windows = [measure(reference, draw(500, 10 + seed).round(digits)) for seed in range(400)]
        assert sum(_compute_spread_p(window, 0) < 0.01 for window in windows) <= 11


def test_deviations_that_are_remembered_count_less() -> None:
    """Prices: independent changes, in calm times and in wild ones."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=1000) * np.repeat(rng.choice([0.5, 1.5], 20), 50)
    window = measure(build_sketch(rng.normal(size=5000) * rng.choice([0.5, 1.5], 5000)), values)
    assert window.correlation_time < 3 < window.deviation_time
    assert _compute_spread_p(window, 1) > _compute_spread_p(window, 0)


@pytest.mark.parametrize("effective", [300, 100])
def test_another_form_is_tested_by_the_distribution_function(effective: float) -> None:
    # Of the same median and deviation, but of two humps.
    reference, values = draw(300), np.sign(draw(200, 1)) * 0.7
    sketch = build_sketch(reference, effective)
    window, found = measure(sketch, values), compare(sketch, values)["distribution"]
    p = float(compute_ks_p(window.distance, effective, window.effective))
    assert 0 < p < min(compute_rank_p(reference, window, effective), _compute_spread_p(window, 0))
    assert found.p == pytest.approx(p / _SHARES["function"])


@pytest.mark.parametrize(("m", "n", "is_exact"), [(5, 3, True), (100, 100, True), (200, 100, False)])
def test_few_numbers_are_tested_exactly(m: int, n: int, is_exact: bool) -> None:
    # The least, the greatest, the second least, …: without a memory.
    order = np.stack([np.arange(n), np.arange(n)[::-1]], 1).ravel()[:n]
    reference, values = np.linspace(-1, 1, m), np.linspace(-0.4, 0.4, n)[order]
    window = measure(build_sketch(reference, m), values)
    approximate = float(compute_ks_p(window.distance, window.reference_effective, window.effective))
    exact = float(ks_2samp(reference, values, method="exact").pvalue)
    assert approximate < exact
    assert _compute_function_p(window) == pytest.approx(exact if is_exact else approximate)
    endless = np.append(values[1:], np.inf)
    assert compare(build_sketch(reference, m), endless)["distribution"].p <= 1


def test_a_part_of_a_reference_has_no_exact_test() -> None:
    part = NumberSketch("input.a", "inputs", "", 40, 0, np.linspace(-1, 1, 20), 400)
    values = np.linspace(-0.1, 0.1, 30)[np.random.default_rng(1).permutation(30)]
    window = measure(part, values)
    approximate = float(compute_ks_p(window.distance, 400, window.effective))
    p = min(approximate / _SHARES["function"], _compute_spread_p(window, 0) / _SHARES["spread"])
    assert compare(part, values)["distribution"].p == pytest.approx(p)


def test_a_constant_reference_is_compared_by_its_distribution_function() -> None:
    constant = build_sketch(np.full(300, 2))
    assert compare(constant, np.full(200, 2))["distribution"].p == 1
    found = compare(constant, 2 + np.abs(draw(200)))["distribution"]
    assert (found.distance, found.shift) == (1, math.inf)
    assert found.p < 1e-9


# The tails.

THOUSAND = build_sketch(np.linspace(-1, 1, 1001), 500)
"""One percent on each side is beyond 0.98: ten values of 1,001, which are worth half as many."""


def fill(*counts: tuple[float, int]) -> Floats:
    """400 values like those of the reference, of which some are replaced."""
    values = np.random.default_rng(3).permutation(np.linspace(-0.97, 0.97, 400 - sum(count for _, count in counts)))
    extreme = np.concatenate([np.full(count, value) for value, count in counts])
    return np.random.default_rng(4).permutation(np.concatenate([values, extreme]))


@pytest.mark.parametrize(("low", "high"), [(16, 0), (2, 16), (16, 16)])
def test_more_extreme_values(low: int, high: int) -> None:
    values = fill((-0.99, low), (0.99, high))
    window, results = measure(THOUSAND, values), compare(THOUSAND, values)
    assert list(results) == ["tails"]
    found = results["tails"]
    # The larger count of the two sides, in effective values, and twice the chance.
    most = max(low, high)
    p = 2 * float(compute_exceedance_p(most / window.correlation_time, window.effective, 10 * 500 / 1001, 500))
    assert found.p == pytest.approx(p / 0.1)
    assert 0 < found.p < 0.5
    assert (found.before, found.now) == pytest.approx((20 / 1001, (low + high) / 400))
    assert found.distance == max(window.distance, abs(found.now - found.before))
    assert found.effective == window.effective
    assert math.isnan(found.shift)


def test_tails_that_are_as_frequent_as_before_are_no_find() -> None:
    # 4 of 400 are 10 of 1,000.
    found = compare(THOUSAND, fill((-0.99, 4), (0.99, 4)))["distribution"]
    assert found.kind == "distribution"
    many = compare(THOUSAND, np.repeat(0.99, 40) + draw(40) * 1e-3)
    assert many["distribution"].kind == "distribution"


@pytest.mark.parametrize(
    ("by", "kind"), [(0.14, "tails"), (-0.14, "tails"), (0.15, "distribution"), (-0.15, "distribution")]
)
def test_the_tails_of_a_column_that_has_moved_have_moved(by: float, kind: str) -> None:
    # A quarter of the standard deviation is 0.1445.
    assert THOUSAND.spread / 4 == pytest.approx(0.1445, abs=1e-3)
    halves = [np.full(30, -0.99), np.linspace(-0.97, by, 170), np.linspace(by, 0.97, 170), np.full(30, 0.99)]
    values = np.random.default_rng(0).permutation(np.concatenate(halves))
    assert measure(THOUSAND, values).median == pytest.approx(by)
    found, window = compare(THOUSAND, values)[kind], measure(THOUSAND, values)
    # The smallest p-value of the column, whatever it is called.
    p = 2 * float(compute_exceedance_p(30 / window.correlation_time, window.effective, 10 * 500 / 1001, 500))
    assert found.p == pytest.approx(p / 0.1)
    assert 0 < found.p < 1e-4


# The quality of the data.


def test_values_out_of_range() -> None:
    values = fill((-1.5, 3), (1.5, 8))
    window, results = measure(THOUSAND, values), compare(THOUSAND, values)
    found = results["range"]
    p = 2 * float(compute_exceedance_p(8 / window.correlation_time, window.effective, 0, 500))
    assert 0 < p < 0.01
    assert found.p == pytest.approx(p / 0.03)
    assert (found.before, found.now, found.distance) == pytest.approx((0, 11 / 400, 11 / 400))
    assert found.effective == window.effective
    assert "range" not in compare(THOUSAND, fill((-1, 3), (1, 8)))
    assert compare(THOUSAND, fill((1.5, 1)))["range"].p == 1
    assert "range" in compare(THOUSAND, fill((-1.5, 1)))


@pytest.mark.parametrize(("outside", "is_reported"), [(0.49, False), (0.5, True), (1, True)])
def test_a_column_that_has_moved_is_one_find_unless_half_is_outside(outside: float, is_reported: bool) -> None:
    values = np.where(np.arange(400) < 400 * outside, 1.5, 0.9)
    values = np.random.default_rng(0).permutation(values) + draw(400) * 1e-6
    assert ("range" in compare(THOUSAND, values)) == is_reported


def test_a_stuck_column() -> None:
    sketch = build_sketch([1, 1, *range(2, 100)], effective=50)
    found = compare(sketch, np.full(8, 1))["constant"]
    # Two of a hundred are 1, and one of 51 is added; 8 values are worth 4.
    share = 0.02 + 1 / 51
    assert (found.before, found.now) == (sketch.median, 1)
    assert found.distance == pytest.approx(1 - share)
    assert found.p == pytest.approx(share**3 / 0.02)
    assert found.effective == 4
    # A single value is none, two are, and what the reference lacks as well.
    assert "constant" not in compare(sketch, [1])
    assert compare(sketch, [1, 1])["constant"].p == pytest.approx(1)
    assert compare(build_sketch(range(100)), [0.5, 0.5])["constant"].p == pytest.approx(1 / 101 / 0.02)
    for values in ([1, 1, 2], [0, 1, 1]):
        assert "constant" not in compare(sketch, values)


def test_a_column_that_was_always_constant_is_not_stuck() -> None:
    assert "constant" not in compare(build_sketch([2, 2, 2]), [2, 2])
    assert "constant" not in compare(build_sketch([2, 2, 2]), [3, 3])
    assert "constant" in compare(build_sketch([2, 2, 3]), [2, 2, 2, 2])
    assert "constant" in compare(build_sketch([2, 3, 3]), [3, 3, 3, 3])
    mostly = build_sketch([*[2] * 99, 3], effective=1)
    found = compare(mostly, [2] * 50)["constant"]
    # Never more than all.
    assert (found.distance, found.p) == (0, 1)


def test_a_larger_sketch_counts_by_rank() -> None:
    values = draw(20_000)
    sketch = build_number_sketch("input.a", "inputs", values)
    window = measure(sketch, draw(300, 1) + 0.5)
    assert window.distance == pytest.approx(ks_2samp(values, window.values).statistic, abs=1 / 4096)
    found = compare(sketch, np.append(draw(300, 1), np.full(40, 2.8)))["tails"]
    assert found.before == pytest.approx(0.02, abs=2e-4)


@pytest.mark.parametrize("n", [100, 2_000])
@pytest.mark.parametrize(
    ("convert", "words"),
    [
        (lambda speed: speed / 3.6, "÷ 3.6"),
        (lambda speed: speed * 1000, "× 1000"),
        (lambda speed: (speed - 32) / 1.8, "- 32, ÷ 1.8"),
        (lambda speed: speed + 273.15, "+ 273.15"),
    ],
)
def test_another_unit(n: int, convert: Callable[[Floats], Floats], words: str) -> None:
    random = np.random.default_rng(n)
    sketch = build_number_sketch("input.speed", "inputs", random.gamma(4, 15, size=3_000), "km/h", is_ordered=False)
    _, results = compare_number_column(sketch, convert(random.gamma(4, 15, size=n)), "speed")
    found = next(result for result in results if result.kind == "unit")
    assert found.category == words
    assert found.p < 1e-9
    assert found.format_change().startswith(f"speed looks like another unit ({sketch.median:.3g} → ")


def test_another_shape_or_a_shift_is_not_another_unit() -> None:
    random = np.random.default_rng(0)
    sketch = build_number_sketch("input.speed", "inputs", random.gamma(4, 15, size=3_000), is_ordered=False)
    for values in (random.gamma(4, 15, size=500) + 90, random.uniform(0, 20, size=500), random.gamma(4, 90, size=500)):
        assert "unit" not in [result.kind for result in compare_number_column(sketch, values, "speed")[1]]
