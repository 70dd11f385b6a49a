"""Shares of categories, and new ones: what is counted, how far it has changed, and with which chance."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.monitor.drift.category_tests import compare_category_column
from mlscale.monitor.drift.column_drift import QUALITY, ColumnDrift
from mlscale.reference.column_sketch import CategorySketch, build_category_sketch
from mlscale.stats.autocorrelation import estimate_correlation_time
from mlscale.stats.chi2 import run_chi2_test
from mlscale.stats.exceedances import compute_exceedance_p


def build_sketch(counts: Mapping[str, int], other: int = 0, effective: float | None = None) -> CategorySketch:
    known = sum(counts.values()) + other
    return CategorySketch("input.city", "inputs", known, 0, counts, other, known if effective is None else effective)


def draw(counts: Mapping[str, int], seed: int = 0) -> NDArray[np.object_]:
    values = np.repeat(np.array(list(counts), object), list(counts.values()))
    return np.random.default_rng(seed).permutation(values)


def compare(sketch: CategorySketch, sample: Sequence[str | None] | NDArray[np.object_]) -> dict[str, ColumnDrift]:
    _, results = compare_category_column(sketch, np.array(sample, object), "city")
    assert [result.kind for result in results][-1] == "distribution"
    return {result.kind: result for result in results}


def measure_time(sample: NDArray[np.object_], order: str) -> float:
    return estimate_correlation_time(np.array([order.index(value) for value in sample], np.float64))


def measure_memory(sample: NDArray[np.object_]) -> float:
    """Return that of the categories a, b and c by their frequency, and of the two most frequent ones alone."""
    one_of = {kind: np.where(sample == kind, kind, "x").astype(object) for kind in "ab"}
    return max(measure_time(sample, "abc"), *(measure_time(values, f"x{kind}") for kind, values in one_of.items()))


def test_the_window_is_counted_next_to_its_sketch() -> None:
    sample = np.array(["a", "x", None, "b", "y", "x", "a", "a"], object)
    window, _ = compare_category_column(build_sketch({"b": 5, "a": 3, "c": 2}, other=4), sample, "city")
    assert window is not None
    assert window.values.tolist() == ["a", "x", "b", "y", "x", "a", "a"]
    assert window.new == [("x", 2), ("y", 1)]
    assert window.table.tolist() == [[5, 3, 2, 4], [1, 3, 0, 3]]
    assert window.effective == 7 / window.correlation_time


def test_the_memory_of_a_column_is_that_of_its_frequent_categories() -> None:
    sample = np.repeat(draw({"a": 30, "b": 15, "c": 5}), 10)
    window, _ = compare_category_column(build_sketch({"a": 9, "b": 9, "c": 9}), sample, "city")
    assert window is not None
    assert window.correlation_time == measure_memory(sample) > 5
    assert window.effective == pytest.approx(500 / window.correlation_time)


def test_shares_that_have_changed() -> None:
    sample = draw({"a": 110, "b": 70, "c": 20})
    found = compare(build_sketch({"a": 200, "b": 120, "c": 80}, effective=300), sample)["distribution"]
    assert (found.name, found.label, found.category) == ("input.city", "city", "c")
    assert (found.before, found.now) == (0.2, 0.1)
    assert found.distance == pytest.approx((0.05 + 0.05 + 0.1) / 2)
    # 400 are worth 300; without an order known they may be worth as few as those of the window.
    time = measure_memory(sample)
    counts = np.array([200, 120, 80]), np.array([110, 70, 20])
    assert found.p == pytest.approx(run_chi2_test(*counts, (max(4 / 3, time), time)).p / 0.8)
    assert 0 < found.p < 0.1
    assert found.effective == pytest.approx(200 / time)
    assert compare(build_sketch({"a": 11, "b": 7, "c": 2}), sample)["distribution"].p == 1


def test_what_the_sketch_does_not_name_is_one_category() -> None:
    known = build_sketch({"a": 100, "b": 90}, other=10)
    one = compare(known, draw({"a": 50, "b": 10, "x": 40}))["distribution"]
    assert (one.category, one.before, one.now) == ("x", 0.05, 0.4)
    assert one.distance == pytest.approx(0.35)
    several = compare(known, draw({"a": 50, "b": 10, "x": 20, "y": 20}))["distribution"]
    assert (several.category, several.before, several.now) == ("other", 0.05, 0.4)
    fewer = compare(known, draw({"a": 100, "b": 0}))["distribution"]
    assert (fewer.category, fewer.before, fewer.now) == ("a", 0.5, 1)


@pytest.mark.parametrize(("other", "known"), [(0, 0), (60, 20)])
def test_the_most_frequent_new_category(other: int, known: int) -> None:
    # Those that were left out are rarer than the rarest that is named: 20 of so many.
    sketch = build_sketch({"a": 200, "b": 20}, other, effective=110 + other / 2)
    found = compare(sketch, draw({"a": 60, "y": 15, "x": 25}))["new category"]
    assert (found.category, found.before, found.now, found.distance) == ("x", 0, 0.25, 0.25)
    # Each event counts, and any category of such a sum: `x`, more frequent ones by their chance, those left out.
    p, share = float(compute_exceedance_p(25, 100, known / 2, sketch.effective)), 100 / (100 + sketch.effective)
    assert found.p == pytest.approx(p * (1 + share ** (260 - 25) + other) / 0.1)
    assert 0 < found.p < 0.1
    assert found.effective < 100.1
    assert "new category" not in compare(sketch, draw({"a": 60, "b": 40}))


def test_a_new_category_that_may_have_been_left_out_is_none() -> None:
    sketch = build_sketch({"a": 100, "b": 50}, other=50)
    assert compare(sketch, draw({"a": 60, "b": 30, "x": 10}))["new category"].p == 1


def test_without_values_only_their_absence_is_reported() -> None:
    for sketch, sample in (
        (build_sketch({"a": 5}), [None, None]),
        (CategorySketch("input.city", "inputs", 4, 4, {}, 0, 0), ["a", None]),
    ):
        window, results = compare_category_column(sketch, np.array(sample, object), "city")
        assert window is None
        assert [result.kind for result in results] == ["missing"]
    # A share of 0.05 of the column's budget.
    _, results = compare_category_column(build_sketch({"a": 500}), np.array(["a"] * 48 + [None] * 2, object), "city")
    assert results[0].p == pytest.approx(float(compute_exceedance_p(2, 50, 0, 500)) / 0.05)


@pytest.mark.parametrize("levels", [2, 180, 2_000, 20_000])
@pytest.mark.parametrize(("reference", "window"), [(300, 100), (2_400, 1_000), (20_000, 100), (20_000, 1_000)])
def test_many_categories_are_no_drift(levels: int, reference: int, window: int) -> None:
    """Also where most of them are in one side alone, and where the sketch names but the most frequent ones."""
    generator = np.random.default_rng([levels, reference, window])
    shares = 1 / np.arange(1, levels + 1) ** generator.choice([0.0, 0.5, 1.0])
    draws = [generator.choice(levels, size, p=shares / shares.sum()) for size in [reference, window] * 40]
    names = np.array([f"category {number}" for number in range(levels)], object)
    smallest = []
    for before, now in zip(draws[::2], draws[1::2], strict=True):
        sketch = build_category_sketch("input.city", "inputs", names[before].tolist(), is_ordered=False)
        _, results = compare_category_column(sketch, names[now], "city")
        smallest.append(min(result.p for result in results))
    # The chance of seven in forty, at 5 % each, is .003; before, all forty of 180 levels.
    assert sum(p <= 0.05 for p in smallest) < 7


def test_a_change_of_many_categories_is_detected() -> None:
    generator = np.random.default_rng(5)
    names = np.array([f"category {number}" for number in range(500)], object)
    sketch = build_category_sketch("input.city", "inputs", names[generator.integers(500, size=5_000)].tolist())
    _, results = compare_category_column(sketch, names[generator.integers(350, size=1_000)], "city")
    assert results[-1].p < 1e-9


@pytest.mark.parametrize(
    ("seen", "is_found"), [({"a": 97, "b": 3}, True), ({"b": 100}, True), ({"a": 90, "b": 10}, False)]
)
def test_a_model_that_answers_one_class_alone(seen: Mapping[str, int], is_found: bool) -> None:
    sketch = CategorySketch("output.label", "outputs", 300, 0, {"a": 180, "b": 120}, 0, 300)
    _, results = compare_category_column(sketch, draw(seen), "predicted class")
    collapsed = [result for result in results if result.kind == "constant"]
    assert [result.p < 1e-3 for result in collapsed] == [True] * is_found
    # Inputs may be all alike for some hours, and a reference may be so itself.
    same = CategorySketch("output.label", "outputs", 300, 0, {"a": 270, "b": 30}, 0, 300)
    for other in (replace(sketch, group="inputs"), same):
        assert "constant" not in [result.kind for result in compare_category_column(other, draw(seen), "")[1]]


@pytest.mark.parametrize(
    ("seen", "lost"),
    [
        ({"a": 180, "b": 100, "c": 20}, []),
        ({"a": 180, "b": 120}, ["c"]),
        ({"a": 280, "d": 20}, ["b"]),  # of several the most frequent one
        ({"a": 300}, []),  # which is a collapse
        ({"a": 18, "b": 12}, []),  # which may be chance
        ({"a": 150, "b": 100, "c": 50, "x": 10}, []),
    ],
)
def test_a_common_class_that_a_model_does_not_answer(seen: Mapping[str, int], lost: list[str]) -> None:
    sketch = CategorySketch("output.label", "outputs", 3000, 0, {"a": 1770, "b": 900, "c": 300, "d": 30}, 0, 3000)
    _, results = compare_category_column(sketch, draw(seen), "predicted class")
    found = [result for result in results if result.kind == "lost class" and result.p < 1e-3]
    assert [result.category for result in found] == lost
    assert all(result.distance == 1 and result.kind in QUALITY for result in found)
    assert all(
        result.format_change().startswith(f"predicted class is never {name!r}, ")
        for result, name in zip(found, lost, strict=True)
    )
    # Inputs may lack a category for some hours.
    _, results = compare_category_column(replace(sketch, group="inputs"), draw(seen), "city")
    assert "lost class" not in [result.kind for result in results]


def test_a_collapse_in_words() -> None:
    sketch = CategorySketch("output.label", "outputs", 300, 0, {"a": 180, "b": 120}, 0, 300)
    _, results = compare_category_column(sketch, draw({"b": 200}), "predicted class")
    (found,) = [result for result in results if result.kind == "constant"]
    assert found.format_change().startswith("predicted class is 'b' in 100 %, 40 % before, q ")
