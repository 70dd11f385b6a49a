"""Sketches: their bounds, their quantiles, their effective size, and their parts."""

import numpy as np
import pytest
from scipy.signal import lfilter

from mlscale.reference.column_sketch import (
    MAX_CATEGORIES,
    MAX_VALUES,
    build_category_sketch,
    build_number_sketch,
    merge_category_sketches,
    merge_number_sketches,
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


def test_parts_of_other_columns_are_refused() -> None:
    parts = [build_number_sketch(name, "inputs", np.arange(3.0)) for name in "ab"]
    with pytest.raises(ValueError, match="not the parts of one column"):
        merge_number_sketches(parts)
    with pytest.raises(ValueError, match="not the parts of one column"):
        merge_number_sketches([])
