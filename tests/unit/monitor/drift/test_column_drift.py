"""The result of a column in words."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlscale.monitor.drift.column_drift import ColumnDrift
from mlscale.monitor.drift_plots import plot_drifted_columns
from mlscale.reference.column_sketch import CategorySketch, NumberSketch

AGE = NumberSketch("input.age", "inputs", "years", 100, 0, np.arange(100.0), 100)
CITY = CategorySketch("output.city", "outputs", 100, 0, {"Rome": 100}, 0, 100)


def build(kind: Any, before: float, now: float, reference: Any = AGE, **more: Any) -> ColumnDrift:
    return ColumnDrift(reference.name, "it", kind, before, now, 0.5, 0, reference, None, 90, **more, q=0.012)


def describe(*arguments: Any, **more: Any) -> str:
    text, _, q = build(*arguments, **more).format_change().partition(", q ")
    assert q == "= 0.012"
    return text


def test_names() -> None:
    assert (build("type", 0, 1).group, build("type", 0, 1, CITY).group) == ("inputs", "outputs")
    assert build("type", 0, 1).metric_name == "input_age"


@pytest.mark.parametrize(
    ("is_significant", "may_be_cycle", "is_detected"),
    [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
)
def test_a_cycle_is_no_find(is_significant: bool, may_be_cycle: bool, is_detected: bool) -> None:
    drift = build("tails", 0, 1, is_significant=is_significant, may_be_cycle=may_be_cycle)
    assert drift.is_detected == is_detected


@pytest.mark.parametrize(
    ("kind", "before", "now", "text"),
    [
        ("type", 0, 1, "it is absent or of another type"),
        ("constant", 3, 0.123456, "it is constant (0.123)"),
        ("missing", 0, 0.1, "it is missing in 10 %, 0 % before"),
        ("missing", 0.0999, 0.2, "it is missing in 20 %, 10.0 % before"),
        ("missing", 0.01, 0.126, "it is missing in 13 %, 1.0 % before"),
        ("missing", 0.00999, 0.0004, "it is missing in 0.04 %, 1.00 % before"),
        ("range", 0, 0.05, "it is out of the reference's range in 5.0 %"),
        ("tails", 0.02, 0.155, "it has more extreme values (2.0 % → 16 %)"),
    ],
)
def test_the_quality_of_the_data(kind: str, before: float, now: float, text: str) -> None:
    assert describe(kind, before, now) == text


@pytest.mark.parametrize(
    ("shift", "text"),
    [
        (0.6234, "higher by 0.62 σ"),
        (-1.5, "lower by 1.5 σ"),
        (0.005, "higher by 0.005 σ"),
        (-0.005, "lower by 0.005 σ"),
        (0.0049, "changed its distribution"),
        (-0.0049, "changed its distribution"),
        (0, "changed its distribution"),
        (math.nan, "changed its distribution"),
        (math.inf, "higher than all before"),
        (-math.inf, "lower than all before"),
    ],
)
def test_numbers_move_by_standard_deviations(shift: float, text: str) -> None:
    assert describe("distribution", 34.125, 1234.5, shift=shift) == f"it {text} (34.1 → 1,234 years)"


def test_numbers_without_a_unit() -> None:
    plain = NumberSketch("input.a", "inputs", "", 100, 0, np.arange(100.0), 100)
    assert describe("distribution", 0.5, 0.25, plain, shift=-2) == "it lower by 2 σ (0.5 → 0.25)"


def test_values_that_are_shown_alike_are_left_out() -> None:
    assert describe("distribution", 0.0, 0.00001) == "it changed its distribution (0 → 1e-05 years)"
    assert describe("distribution", 34.12, 34.13) == "it changed its distribution"


def test_categories_have_shares() -> None:
    assert describe("distribution", 0.2, 0.31, CITY, category="Rome") == "it share of 'Rome' higher (20 % → 31 %)"
    assert describe("distribution", 0.2, 0.05, CITY, category="Rome") == "it share of 'Rome' lower (20 % → 5.0 %)"
    assert describe("new category", 0, 0.004, CITY, category="Oslo") == "it has the new category 'Oslo' (0.40 %)"


def test_dots_of_a_columns_name_stay_in_the_names_of_metrics() -> None:
    assert replace(build("type", 0, 1), name="input.Außentemp. [°C]").metric_name == "input_Außentemp. [°C]"


@pytest.mark.parametrize(
    ("label", "axis"),
    [("length", "length, g"), ("Vorlauf (g)", "Vorlauf (g)"), ("Außentemp. [g]", "Außentemp. [g]")],
)
def test_a_unit_in_a_columns_name_is_not_written_twice(label: str, axis: str) -> None:
    column = replace(
        build("type", 0, 1), kind="distribution", label=label, reference=replace(AGE, unit="g"), sample=np.ones(9)
    )
    assert [plot.x for plot in plot_drifted_columns([column])] == [axis]
