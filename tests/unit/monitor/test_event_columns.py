"""Columns of events and baselines, as looks compare them, their names, and their plots."""

from dataclasses import replace

import numpy as np
import pytest

from mlscale.errors import MLScaleError
from mlscale.monitor.drift import ColumnDrift, SeasonalReference
from mlscale.monitor.drift_plots import _compute_bin_edges, plot_drifted_columns
from mlscale.monitor.event_columns import name_columns, round_confidence, round_sketch
from mlscale.monitor.event_window import EventWindow
from mlscale.monitor.window_check import MonitorLimits, RuleResult, check_rules
from mlscale.reference.column_sketch import CategorySketch, NumberSketch, build_number_sketch
from mlscale.task_types.event_forms import AnswerNames, TargetColumn
from tests.unit.monitor.conftest import baseline, window


def compare(seen: EventWindow) -> dict[str, ColumnDrift]:
    columns = check_rules(baseline(), seen, MonitorLimits()).columns
    return {column.name: column for column in reversed(columns)}


def get_drift(seen: EventWindow, samples: int = 10_000) -> RuleResult:
    found = check_rules(baseline(samples), seen, MonitorLimits()).find_result("drift")
    assert found is not None
    return found


def test_every_column_is_compared() -> None:
    columns = compare(window(500, seed=1, shift=1))
    assert {name for name, column in columns.items() if column.is_detected} == {f"input.mean_{c}" for c in range(3)}
    first = columns["input.mean_0"]
    assert (first.before, first.now) == pytest.approx((100, 120), abs=3)
    assert first.distance == pytest.approx(0.38, abs=0.06)  # 2 Φ(½) − 1
    assert first.format_change().startswith("brightness of channel 0 higher by ")
    assert set(columns) >= {"input.std_2", "output.confidence", "output.label"}


def test_what_is_detected_below_the_distance_is_reported_and_no_alert() -> None:
    quiet = get_drift(window(20_000, seed=1, shift=0.12))
    assert 0 < (quiet.level or 0) < 1
    begin = "no drift of single columns in 20,000 events, detected, too small for an alert (brightness of "
    assert quiet.sentence.startswith(begin)
    assert quiet.metrics["detected_columns"] == 3
    loud = get_drift(window(5_000, seed=1, shift=0.4))
    assert loud.is_over


def test_a_phase_of_a_cycle_is_reported_as_such() -> None:
    seen = window(1000, seed=1, shift=0.4)
    times = np.datetime64("2026-01-05", "us") + np.arange(1000).astype("timedelta64[s]")
    held = get_drift(replace(seen, times=times))
    assert held.level == 0
    assert "drift or a phase of a cycle, unknown before a week of events (brightness of channel " in held.sentence
    assert get_drift(seen).is_over


def test_earlier_events_are_compared_by_the_same_columns() -> None:
    earlier = SeasonalReference(window(1000, seed=2, shift=0.4).columns, window(3000, seed=3).columns)
    seen = replace(window(1000, seed=1, shift=0.4), earlier=earlier)
    assert get_drift(seen).level == 0  # at these hours it is always so


def test_a_confidence_that_differs_in_its_last_digits_is_the_same() -> None:
    same = window(1000, seed=0)
    confidence = same.columns["output.confidence"].astype(np.float64) * (1 - 1e-6)
    columns = {**same.columns, "output.confidence": round_confidence(confidence)}
    assert compare(replace(same, columns=columns))["output.confidence"].distance < 0.01


def test_confidences_of_a_reference_alone_are_as_coarse_as_those_of_events() -> None:
    values = np.array([0.98764, 0.12345678])
    rounded = round_sketch(build_number_sketch("output.confidence", "outputs", values))
    assert isinstance(rounded, NumberSketch)
    assert rounded.values.tolist() == pytest.approx([0.1235, 0.9876], abs=1e-12)
    (classes,) = (sketch for sketch in baseline().sketches if isinstance(sketch, CategorySketch))
    for other in (build_number_sketch("output.value", "outputs", values), replace(classes, name="output.confidence")):
        assert round_sketch(other) is other


def test_inputs_that_are_no_numbers_are_missing() -> None:
    broken = window(300, seed=1)
    broken.columns["input.mean_1"][:] = np.nan
    broken.columns["input.std_2"][:100] = np.inf
    drift = get_drift(broken)
    assert drift.sentence.startswith("data quality (brightness of channel 1 is missing in 100 %, 0 % before, q < 1e-9")
    assert len(plot_drifted_columns(check_rules(baseline(), broken, MonitorLimits()).columns)) == 4


def test_classes_that_the_model_does_not_have_are_named() -> None:
    odd = window(300, seed=1)
    odd.columns["output.label"][:150] = "gibbon"
    first = check_rules(baseline(), odd, MonitorLimits()).columns[0]
    assert first.format_change() == "predicted class has the new category 'gibbon' (50 %), q < 1e-9"


def test_events_of_another_model_are_refused() -> None:
    seen = window(300, seed=1)
    columns = {f"input.age_{name}": values for name, values in seen.columns.items()}
    with pytest.raises(MLScaleError, match="have none of the columns of its reference profile") as caught:
        compare(replace(seen, columns=columns))
    assert caught.value.where == "events"


def test_a_channel_that_is_absent_is_a_problem_of_the_data() -> None:
    drift = get_drift(window(300, seed=1, channels=2))
    assert drift.sentence.startswith("data quality (brightness of channel 2 is absent or of another type, q < 1e-9")


def test_plots_show_then_and_now() -> None:
    columns = check_rules(baseline(), window(500, seed=1, shift=1), MonitorLimits()).columns
    shown = plot_drifted_columns(columns)
    assert all(figure.title.startswith("brightness of channel") for figure in shown[:3])
    for figure in shown:
        for series in figure.series:
            assert len(series.y) == len(figure.labels)
            assert sum(series.y) == pytest.approx(1)
    (classes,) = plot_drifted_columns([column for column in columns if column.name == "output.label"])
    assert sorted(classes.labels) == list("abcdef")


def test_whole_numbers_have_a_bar_each() -> None:
    edges = _compute_bin_edges(np.array([1.0, 2, 2, 7]), np.array([1.0, 3, 6]))
    assert edges.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    # More of them than bars: as many in each.
    wide = _compute_bin_edges(np.arange(100.0), np.arange(100.0))
    assert set(np.diff(wide)) == {7}
    assert len(wide) <= 17
    # Numbers with decimals, and measurements in whole units, as before.
    assert len(_compute_bin_edges(np.array([0.5, 2]), np.array([1.0]))) == 17
    assert len(_compute_bin_edges(np.array([0.0, 20_000]), np.array([1.0]))) == 17


def test_columns_are_named_by_what_the_input_is() -> None:
    assert baseline(channels=1).column_names == {
        "input.mean_0": "brightness", "input.std_0": "contrast",
        "output.confidence": "confidence", "output.label": "predicted class",
    }  # fmt: skip
    table = replace(baseline(channels=2), has_pixels=False).column_names
    assert (table["input.mean_1"], table["input.std_0"]) == ("mean of channel 1", "deviation of channel 0")


def test_columns_of_any_type_have_names() -> None:
    columns = (
        "input.age",
        "input.mean_radius",
        "input.non_ascii",
        "output.value",
        "output.share_road",
        "output.loss",
        "output.label_count",
    )
    sketches = [
        build_number_sketch(name, "outputs" if name.startswith("output") else "inputs", np.zeros(1)) for name in columns
    ]
    names = name_columns(sketches, AnswerNames(targets=(TargetColumn("mass", "g"),)), has_pixels=False)
    assert list(names.values()) == [
        "age", "mean_radius", "non_ascii", "predicted mass", "share of road", "loss per token", "number of labels"
    ]  # fmt: skip
    # Of texts the names are ours; a table may have a column of that name.
    texts = [build_number_sketch(f"input.{name}", "inputs", np.zeros(1)) for name in ("letters", "spaces", "non_ascii")]
    assert name_columns(texts, AnswerNames(), has_pixels=False)["input.non_ascii"] == "characters beyond ASCII"
    both = name_columns(
        [build_number_sketch("output.mass", "outputs", np.zeros(1))],
        AnswerNames(targets=(TargetColumn("mass"), TargetColumn("age"))),
        has_pixels=False,
    )
    assert both == {"output.mass": "predicted mass"}
