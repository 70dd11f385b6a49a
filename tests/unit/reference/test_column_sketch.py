"""Sketches: their bounds, their quantiles, their effective size, and their parts."""

import numpy as np
import pytest
from scipy.signal import lfilter

from mlscale.reference.column_sketch import (
    MAX_CATEGORIES,
    MAX_VALUES,
    CategorySketch,
    NumberSketch,
    build_category_sketch,
    build_number_sketch,
    merge_category_sketches,
    merge_number_sketches,
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


def test_parts_merge_into_the_whole() -> None:
    values = np.random.default_rng(0).normal(size=30_000)
    whole = build_number_sketch("input.a", "inputs", values)
    parts = [build_number_sketch("input.a", "inputs", values[a:b]) for a, b in ((0, 100), (100, 9000), (9000, None))]
    merged = merge_number_sketches(parts)
    assert (merged.samples, merged.known, len(merged.values)) == (30_000, 30_000, MAX_VALUES)
    assert (merged.values[0], merged.values[-1]) == (values.min(), values.max())
    ranks = np.searchsorted(np.sort(values), merged.values) / 30_000
    assert abs(ranks - whole.below).max() < 2 / MAX_VALUES
    few = merge_number_sketches([build_number_sketch("a", "inputs", np.array(part)) for part in ([3.0, 1.0], [2.0])])
    assert few.values.tolist() == [1, 2, 3]


def test_categories_of_parts_add_up() -> None:
    parts = [build_category_sketch("a", "inputs", values) for values in (["x", "y", None], ["y"])]
    merged = merge_category_sketches(parts)
    assert dict(merged.counts) == {"y": 2, "x": 1}
    assert (merged.samples, merged.missing, merged.other) == (4, 1, 0)
    # Equal counts by name, whichever part came first.
    equal = [build_category_sketch("a", "inputs", [value]) for value in "zxy"]
    assert list(merge_category_sketches(equal).counts) == ["x", "y", "z"]


def test_parts_of_other_columns_are_refused() -> None:
    parts = [build_number_sketch(name, "inputs", np.arange(3.0)) for name in "ab"]
    with pytest.raises(ValueError, match="not the parts of one column"):
        merge_number_sketches(parts)
    with pytest.raises(ValueError, match="not the parts of one column"):
        merge_number_sketches([])
    cities = [build_category_sketch(name, "inputs", ["x"]) for name in "ab"]
    with pytest.raises(ValueError, match=r"not the parts of one column: \['a', 'b'\]"):
        merge_category_sketches(cities)


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


def test_the_order_of_categories_is_one_of_time_where_it_is_said_to_be() -> None:
    values = ["a"] * 200 + ["b"] * 100
    random = np.random.default_rng(0).permutation(values).tolist()
    assert build_category_sketch("a", "inputs", values).effective < 30
    assert build_category_sketch("a", "inputs", values, is_ordered=False).effective == 300
    assert build_category_sketch("a", "inputs", random).effective > 200
    assert build_category_sketch("a", "inputs", [], is_ordered=True).effective == 0


def test_the_values_of_parts_are_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(size=6000)
    values[::10] = np.nan
    parts = [build_number_sketch("a", "inputs", values[a:b], unit) for a, b, unit in ((0, 2500, "m"), (2500, 6000, ""))]
    merged = merge_number_sketches(parts)
    whole = build_number_sketch("a", "inputs", values, "m")
    assert merged.values.tolist() == whole.values.tolist()
    assert (merged.samples, merged.missing, merged.unit) == (6000, 600, "m")
    assert merged.effective == parts[0].effective + parts[1].effective


def test_a_value_of_a_large_part_stands_for_more_samples() -> None:
    large = NumberSketch("a", "inputs", "", 9000, 0, np.arange(3.0), 9000)
    small = NumberSketch("a", "inputs", "", 3000, 0, np.full(3000, 1.5), 3000)
    merged = merge_number_sketches([large, small])
    values, counts = np.unique(merged.values, return_counts=True)
    # A quarter each: 0 and 1, then all of the small part, then 2.
    assert values.tolist() == [0, 1, 1.5, 2]
    assert counts == pytest.approx([1024] * 4, abs=1)


def test_parts_without_values_have_none_together() -> None:
    empty = build_number_sketch("a", "inputs", np.full(3, np.nan))
    merged = merge_number_sketches([empty, empty])
    assert (merged.samples, merged.missing, merged.values.tolist(), merged.effective) == (6, 6, [], 0)
    one = merge_number_sketches([empty, build_number_sketch("a", "inputs", np.array([2.0, 1.0]))])
    assert (one.samples, one.values.tolist()) == (5, [1, 2])


def test_the_most_frequent_categories_of_all_parts_are_selected() -> None:
    def build(counts: dict[str, int], other: int) -> CategorySketch:
        known = sum(counts.values()) + other
        return CategorySketch("a", "outputs", known + 2, 2, counts, other, known / 2)

    names = [f"{number:04}" for number in range(MAX_CATEGORIES)]
    merged = merge_category_sketches([build({"z": 5, **dict.fromkeys(names, 2)}, 7), build({"z": 1, "y": 3}, 1)])
    assert list(merged.counts.items())[:3] == [("z", 6), ("y", 3), ("0000", 2)]
    assert len(merged.counts) == MAX_CATEGORIES
    assert (merged.name, merged.group, merged.samples, merged.missing) == ("a", "outputs", 2021, 4)
    assert merged.other == 7 + 1 + 2 * 2
    assert merged.effective == 2017 / 2
