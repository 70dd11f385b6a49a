"""Sketches: their bounds, their quantiles, their effective size."""

import numpy as np
import pytest
from scipy.signal import lfilter

from mlscale.reference.column_sketch import (
    MAX_CATEGORIES,
    MAX_VALUES,
    NumberSketch,
    build_category_sketch,
    build_number_sketch,
    select_even_ranks,
)


def test_few_numbers_are_all_kept() -> None:
    sketch = build_number_sketch("input.age", "inputs", np.array([3.0, np.nan, 1.0, 2.0, 2.0]), "years")
    assert sketch.values.tolist() == [1, 2, 2, 3]
    assert (sketch.samples, sketch.missing, sketch.known, sketch.unit, sketch.median) == (5, 1, 4, "years", 2)
    assert sketch.below.tolist() == [0, 0.25, 0.25, 0.75]
    assert sketch.up_to.tolist() == [0.25, 0.75, 0.75, 1]


def test_many_numbers_are_bounded_and_the_ends_kept() -> None:
    values = np.random.default_rng(0).permutation(100_000).astype(np.float64)
    sketch = build_number_sketch("input.a", "inputs", values)
    assert len(sketch.values) == MAX_VALUES
    assert (sketch.values[0], sketch.values[-1]) == (0, 99_999)
    assert np.array_equal(sketch.values, sketch.ranks)
    assert sketch.effective == pytest.approx(100_000, rel=0.05)


def test_the_effective_size_of_a_series() -> None:
    noise = np.random.default_rng(1).normal(size=5000)
    series = np.asarray(lfilter([1], [1, -0.8], noise))
    sketch = build_number_sketch("input.a", "inputs", series)
    assert 5000 / sketch.effective == pytest.approx(10, rel=0.25)
    outlier = series.copy()
    outlier[2000] = 1e9
    # By ranks: one value does not hide the rest.
    assert build_number_sketch("input.a", "inputs", outlier).effective == pytest.approx(sketch.effective, rel=0.1)
    assert build_number_sketch("input.a", "inputs", series, is_ordered=False).effective == 5000


def test_nothing_but_missing_values() -> None:
    sketch = build_number_sketch("input.a", "inputs", np.full(3, np.nan))
    assert (sketch.known, len(sketch.values), sketch.effective) == (0, 0, 0)
    assert np.isnan([sketch.median, sketch.spread]).all()
    assert build_category_sketch("input.a", "inputs", [None, None]).known == 0


def test_categories_are_bounded() -> None:
    values = [str(number % 1500) for number in range(3000)] + ["often"] * 10 + [None]
    sketch = build_category_sketch("input.city", "inputs", values)
    assert len(sketch.counts) == MAX_CATEGORIES
    assert next(iter(sketch.counts.items())) == ("often", 10)
    assert sum(sketch.counts.values()) + sketch.other == sketch.known == 3010
    assert sketch.missing == 1


def test_a_category_that_stays_has_a_small_effective_size() -> None:
    random = np.random.default_rng(0)
    values = np.repeat(random.choice(list("abc"), 300), 20).tolist()
    sketch = build_category_sketch("input.a", "inputs", values)
    assert 150 <= sketch.effective <= 450


@pytest.mark.parametrize(
    ("known", "count", "ranks"),
    [(0, 0, []), (1, 1, [0]), (4, 4, [0, 1, 2, 3]), (10, 4, [0, 3, 6, 9]), (100, 3, [0, 50, 99])],
)
def test_ranks_are_evenly_spaced(known: int, count: int, ranks: list[int]) -> None:
    assert select_even_ranks(known, count).tolist() == ranks


def test_ties_make_ranks_vary_less() -> None:
    def get_tie_factor(*values: float) -> float:
        return build_number_sketch("a", "inputs", np.array(values)).tie_factor

    # A sixteenth for each of two single values, a quarter for each of two equal ones.
    assert get_tie_factor(1, 2, 2, 4) == 1 - (2 * 1 / 16 + 2 * 1 / 4) / 4
    assert get_tie_factor(3, 3, 3) == 0
    assert get_tie_factor(1, 2, 3, 4) == 1 - 1 / 16


def test_the_spread_is_of_finite_values() -> None:
    def get_spread(*values: float) -> float:
        return build_number_sketch("a", "inputs", np.array(values)).spread

    assert get_spread(1, 1, 3, 3, np.inf, -np.inf) == 1
    assert get_spread(2, 2) == 0
    assert np.isnan(get_spread(np.inf, np.inf))


def test_a_sketch_of_many_has_shares_by_rank() -> None:
    sketch = NumberSketch("a", "inputs", "", 1010, 10, np.array([1.0, 2.0, 2.0, 3.0]), 1000)
    assert sketch.ranks.tolist() == [0, 333, 666, 999]
    assert sketch.below.tolist() == [0, 0.333, 0.333, 0.999]
    assert sketch.up_to.tolist() == [0.001, 0.667, 0.667, 1]


def test_equal_counts_are_selected_by_name() -> None:
    values = [f"{number:04}" for number in range(1500)]
    for shuffled in (values, values[::-1]):
        sketch = build_category_sketch("a", "inputs", [*shuffled, "x", "x", None], is_ordered=False)
        assert list(sketch.counts) == ["x", *values[:999]]
        assert (sketch.other, sketch.known, sketch.samples, sketch.missing) == (501, 1502, 1503, 1)
        assert sketch.effective == 1502


def test_the_order_of_categories_is_one_of_time_where_it_is_printed_to_be() -> None:
    values = ["a"] * 200 + ["b"] * 100
    random = np.random.default_rng(0).permutation(values).tolist()
    assert build_category_sketch("a", "inputs", values).effective < 30
    assert build_category_sketch("a", "inputs", values, is_ordered=False).effective == 300
    assert build_category_sketch("a", "inputs", random).effective > 200
    assert build_category_sketch("a", "inputs", [], is_ordered=True).effective == 0
