"""Damage in one piece of a window is found, whatever the memory of the series; what columns usually do is not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.monitor.drift import ColumnDrift, DriftLimits, compare_columns
from mlscale.reference.column_sketch import ColumnSketch, build_category_sketch, build_number_sketch

Values = NDArray[np.float64]
SKETCHES: list[ColumnSketch] = [
    *(
        build_number_sketch(f"input.c{number}", "inputs", np.random.default_rng(number).normal(size=5000))
        for number in range(3)
    ),
    build_category_sketch("input.kind", "inputs", [*"abc"] * 1000, is_ordered=False),
]


def draw(n: int, seed: int, rho: float = 0.0) -> dict[str, Any]:
    """Columns of numbers with a memory, and one of categories."""
    rng = np.random.default_rng([seed, 7])
    columns: dict[str, Any] = {}
    for sketch in SKETCHES[:3]:
        values = rng.normal(size=n)
        for at in range(1, n):
            values[at] = rho * values[at - 1] + np.sqrt(1 - rho**2) * values[at]
        columns[sketch.name] = values
    return columns | {"input.kind": rng.choice(np.array(["a", "b", "c"], object), n)}


def find(columns: dict[str, Any], sketches: Any = None) -> list[ColumnDrift]:
    results = compare_columns(sketches or SKETCHES, columns, np.zeros(0, "datetime64[us]"), DriftLimits())
    return [result for result in results if result.is_detected]


def scale_first_tenth(values: Values) -> None:
    values[: len(values) // 10] *= 12


def stick_from_the_middle(values: Values) -> None:
    values[len(values) // 2 :] = values[len(values) // 2]


def stick_for_seven(values: Values) -> None:
    values[500:507] = values[500]


def clip(values: Values) -> None:
    np.clip(values, *np.quantile(values, [0.02, 0.98]), out=values)


def round_all(values: Values) -> None:
    np.round(values, 1, out=values)


@pytest.mark.parametrize("rho", [0.0, 0.8])
@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (scale_first_tenth, "range", "c1 is out of the reference's range in "),
        (stick_from_the_middle, "stuck", " for 500 events in a row, q "),
        (stick_for_seven, "stuck", " for 7 events in a row, q "),
        (clip, "clipped", " (20 events), q "),
        (round_all, "rounded", "c1 is rounded to 1 decimals, q "),
    ],
)
def test_a_damaged_piece_is_found(damage: Callable[[Values], None], kind: str, words: str, rho: float) -> None:
    for seed in range(3):
        columns = draw(1000, seed, rho)
        damage(columns["input.c1"])
        found = [result for result in find(columns) if result.name == "input.c1" and result.kind == kind]
        assert found
        assert words in found[0].format_change()


@pytest.mark.parametrize("is_missing", [False, True])
def test_rows_of_a_cache_are_found(is_missing: bool) -> None:
    columns = {name: np.repeat(values, 10) for name, values in draw(100, 1).items()}
    if is_missing:
        columns["input.c0"][:] = np.nan
    (found,) = (result for result in find(columns) if result.kind == "repeated")
    assert "the input is the one before in 90 %, up to 10 times in a row, q " in found.format_change()
    assert found.distance == pytest.approx(0.9)
    # Of one column alone it is a matter of that column, and of four events in a row nothing.
    columns["input.kind"] = np.array([*"ab"] * 500, object)
    assert not [result for result in find(columns) if result.kind == "repeated"]
    few = draw(1000, 2)
    for values in few.values():
        values[10:14] = values[10]
    assert find(few) == []


@pytest.mark.parametrize("rho", [0.0, 0.8, 0.95])
def test_clean_windows_have_no_damage(rho: float) -> None:
    every = [result for seed in range(20) for result in find(draw(1000, seed, rho))]
    assert [result for result in every if result.kind != "distribution"] == []


def rain(rng: np.random.Generator, n: int) -> Values:
    values: Values = draw(n, int(rng.integers(1000)), 0.9)["input.c0"]
    return np.maximum(0, values)


def read_often(rng: np.random.Generator, n: int) -> Values:
    """A sensor that is read up to five times before it measures again."""
    return np.repeat(rng.normal(size=n), rng.integers(1, 6, n))[:n]


def send_constants(rng: np.random.Generator, n: int) -> Values:
    """Users that send fifty events in a row with what never changes of them."""
    return np.repeat(rng.normal(size=n), 1 + rng.geometric(1 / 50, n))[:n]


def counts(rng: np.random.Generator, n: int) -> Values:
    return rng.poisson(2, n).astype(np.float64)


@pytest.mark.parametrize("draw_values", [rain, read_often, send_constants, counts])
def test_values_that_are_usually_equal_are_not_damaged(draw_values: Any) -> None:
    rng = np.random.default_rng(3)
    sketches = [build_number_sketch("input.c0", "inputs", rng.permutation(draw_values(rng, 20_000)))]
    kinds = [result.kind for _ in range(30) for result in find({"input.c0": draw_values(rng, 1000)}, sketches)]
    assert {"stuck", "clipped", "rounded", "repeated", "range"}.isdisjoint(kinds)


def test_constants_of_a_user_in_a_burst_are_not_stuck() -> None:
    columns = draw(1000, 4)
    columns["input.c1"][300:400] = 0.1234
    assert "stuck" in [result.kind for result in find(columns)]
    columns["group"] = np.array([f"u{number}" for number in [*range(300), *[300] * 100, *range(301, 901)]], object)
    assert find(columns) == []
