"""What a cycle could explain: how many times as frequent a value may be, and which windows exceed that."""

import numpy as np
import pytest

from mlscale.monitor.drift.category_tests import CategoryWindow, compare_category_column
from mlscale.monitor.drift.number_tests import NumberWindow, compare_number_column
from mlscale.monitor.drift.seasonal_reference import compute_cycle_ratio, exceeds_any_cycle
from mlscale.reference.column_sketch import CategorySketch, NumberSketch
from mlscale.stats.exceedances import compute_exceedance_p


@pytest.mark.parametrize(
    ("minutes", "ratio"),
    [(0, 8), (22 * 60 - 1, 8), (22 * 60, 4), (166 * 60 - 1, 4), (166 * 60, 1), (9999 * 60, 1)],
)
def test_a_shorter_window_may_be_an_extreme_part_of_a_cycle(minutes: int, ratio: float) -> None:
    start = np.datetime64("2026-01-05", "us")
    # In any order, since clocks of several servers differ.
    times = start + np.array([minutes // 2, minutes, 0, minutes // 3]).astype("timedelta64[m]")
    assert compute_cycle_ratio(times) == ratio


def test_unknown_times_are_those_of_all_the_week() -> None:
    assert compute_cycle_ratio(np.zeros(0, "datetime64[us]")) == 1


def count_categories(counts: dict[str, int], effective: float = 400) -> CategoryWindow:
    sketch = CategorySketch("input.a", "inputs", 400, 0, {"x": 340, "y": 40, "z": 20}, 0, effective)
    values = np.random.default_rng(0).permutation(np.repeat(np.array(list(counts), object), list(counts.values())))
    window, _ = compare_category_column(sketch, values, "a")
    assert window is not None
    return window


def find_chance(window: CategoryWindow | NumberWindow, ratio: float) -> float:
    """The smallest p at which the window exceeds a cycle."""
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low * high) ** 0.5 if low else high / 1e6
        if exceeds_any_cycle(window, ratio, middle):
            high = middle
        else:
            low = middle
    return high


@pytest.mark.parametrize("effective", [400, 200])
def test_a_category_that_is_more_frequent_than_a_cycle_makes_it(effective: float) -> None:
    window = count_categories({"x": 40, "y": 60}, effective)
    # 'y' was 40 of 400; one more is added, and by a cycle it is at most four times as frequent.
    chance = float(
        compute_exceedance_p(60 / window.correlation_time, window.effective, 4 * 41 * effective / 400, effective)
    )
    # Of four: the three that the sketch names, and all others.
    assert find_chance(window, 4) == pytest.approx(4 * chance, rel=1e-6)
    assert exceeds_any_cycle(window, 4, 0.05)
    assert not exceeds_any_cycle(window, 8, 0.05)
    assert not exceeds_any_cycle(count_categories({"x": 80, "y": 20}), 4, 0.05)
    # At most all samples: 'x' alone is no more than a cycle could show.
    assert not exceeds_any_cycle(count_categories({"x": 100}), 4, 0.9)


def compare_numbers(values: np.ndarray, effective: float = 501) -> NumberWindow:
    sketch = NumberSketch("input.a", "inputs", "", 501, 0, np.arange(501.0), effective)
    window, _ = compare_number_column(sketch, np.random.default_rng(0).permutation(values), "a")
    assert window is not None
    return window


@pytest.mark.parametrize(
    ("values", "count", "before"),
    [
        # The tails of 5 % and of 1 %, on either side, and what is outside of the range.
        (np.append(np.linspace(30, 470, 50), np.full(50, 10.0)), 50, 25),
        (np.append(np.linspace(30, 470, 50), np.full(50, 490.0)), 50, 25),
        (np.append(np.linspace(30, 470, 80), np.full(20, 2.5)), 20, 5),
        (np.append(np.linspace(30, 470, 80), np.full(20, 497.5)), 20, 5),
        (np.append(np.linspace(30, 470, 90), np.full(10, -1.0)), 10, 0),
        (np.append(np.linspace(30, 470, 90), np.full(10, 501.0)), 10, 0),
    ],
)
@pytest.mark.parametrize("effective", [501, 250])
def test_the_tails_of_numbers_show_what_a_cycle_does_not_explain(
    values: np.ndarray, count: int, before: int, effective: float
) -> None:
    window = compare_numbers(values, effective)
    # As many of the reference are below a threshold as its rank is.
    many = 4 * (before + 1) * effective / 501
    chance = float(compute_exceedance_p(count / window.correlation_time, window.effective, many, effective))
    assert 0 < chance < 0.5
    assert find_chance(window, 4) == pytest.approx(6 * chance, rel=1e-6)


def test_a_window_that_is_like_the_reference_exceeds_nothing() -> None:
    assert not exceeds_any_cycle(compare_numbers(np.linspace(0, 500, 100)), 4, 0.9)
