"""Drift: what is found, what is too small to count, and how often a clean window cries wolf."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from mlscale.errors import MLScaleError
from mlscale.monitor.drift import ColumnDrift, detect_drift
from mlscale.monitor.drift_plots import plot_drifted_columns
from mlscale.monitor.window_check import MonitorLimits, WindowCheck, check_rules
from tests.unit.monitor.conftest import baseline, window


def by_name(columns: tuple[ColumnDrift, ...]) -> dict[str, ColumnDrift]:
    return {column.name: column for column in columns}


def test_every_column_is_compared_and_told() -> None:
    columns = by_name(detect_drift(baseline(), window(500, seed=1, shift=1), 0.01))
    assert list(columns) == [
        *(f"input_{what}_{c}" for what in ("mean", "std") for c in range(3)),
        "confidence",
        "classes",
    ]
    assert {name for name, column in columns.items() if column.is_significant} == {f"input_mean_{c}" for c in range(3)}
    first = columns["input_mean_0"]
    assert (first.before, first.now) == pytest.approx((100, 120), abs=3)
    assert first.distance == pytest.approx(0.38, abs=0.06)  # 2 Φ(½) − 1
    assert first.format_change().startswith("brightness of channel 0 ")
    assert first.format_change().endswith("q < 1e-9")


@pytest.mark.parametrize(("samples", "n"), [(360, 100), (360, 2_000), (5_000, 300)])
def test_false_alarms_per_look_over_clean_windows(samples: int, n: int) -> None:
    """At most `fdr` of the looks, whatever the sizes of reference and window; each look has a reference of its own."""
    looks, limits = 250, MonitorLimits(fdr=0.1, min_distance=1e-9)
    seen = [check_rules(baseline(samples, seed=seed), window(n, seed=10_000 + seed), limits) for seed in range(looks)]
    assert np.mean([drifted(each) for each in seen]) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / looks)


def test_with_the_defaults_clean_windows_are_quiet() -> None:
    """250 looks at windows of their own against one reference: 1 % of them, and three sigma of chance."""
    reference = baseline(2_000)
    seen = [check_rules(reference, window(400, seed=1 + seed), MonitorLimits()) for seed in range(250)]
    assert sum(map(drifted, seen)) <= 0.01 * 250 + 3 * np.sqrt(0.01 * 250)


def drifted(seen: WindowCheck) -> bool:
    signal = seen.find_result("drift")
    return signal is not None and signal.is_over


def test_many_events_do_not_make_a_whisper_an_alarm() -> None:
    seen = check_rules(baseline(10_000), window(100_000, seed=1, shift=0.1), MonitorLimits())
    signal = seen.find_result("drift")
    assert any(column.is_significant for column in seen.columns)
    assert signal is not None
    assert 0 < (signal.level or 0) < 1
    assert signal.sentence == "no drift in 100,000 events"
    loud = check_rules(baseline(10_000), window(100_000, seed=1, shift=0.4), MonitorLimits()).find_result("drift")
    assert loud is not None
    assert loud.is_over


def test_a_confidence_that_differs_in_its_last_digits_is_the_same() -> None:
    reference, same = baseline(), window(1000, seed=0)
    other = replace(same, confidence=same.confidence * np.float32(1 - 1e-6))
    assert by_name(detect_drift(reference, other, 0.01))["confidence"].distance < 0.01


def test_inputs_that_are_no_numbers_are_drift() -> None:
    broken = window(300, seed=1)
    broken.input_mean[:, 1] = np.nan
    broken.input_std[:100, 2] = np.inf
    columns = by_name(detect_drift(baseline(), broken, 0.01))
    assert columns["input_mean_1"].distance == 1
    assert columns["input_std_2"].is_significant
    assert "nan" in columns["input_mean_1"].format_change()
    assert len(plot_drifted_columns(tuple(columns.values()), tuple("abcdef"))) == 4


def test_classes_that_the_model_does_not_have_are_drift() -> None:
    odd = window(300, seed=1)
    odd.predicted[:150] = 17
    odd.predicted[:20] = -3
    classes = by_name(detect_drift(baseline(), odd, 0.01))["classes"]
    assert classes.is_significant
    assert classes.format_change().startswith("share of unknown classes 0 % → 50 %")


def test_events_of_another_model_are_refused() -> None:
    with pytest.raises(MLScaleError, match=r"have 1 channel\(s\), its reference profile 3"):
        detect_drift(baseline(), window(300, seed=1, channels=1), 0.01)


def test_figures_show_then_and_now() -> None:
    columns = detect_drift(baseline(), window(500, seed=1, shift=1), 0.01)
    shown = plot_drifted_columns(columns, tuple("abcdef"))
    assert [figure.title.split(",")[0] for figure in shown[:3]] != []
    assert all(figure.title.startswith("brightness of channel") for figure in shown[:3])
    for figure in shown:
        for series in figure.series:
            assert len(series.y) == len(figure.labels)
            assert sum(series.y) == pytest.approx(1)
    classes = next(figure for figure in plot_drifted_columns(columns[-1:], tuple("abcdef")))
    assert list(classes.labels) == list("abcdef")


def test_columns_are_named_by_what_the_input_is() -> None:
    one = [column.label for column in detect_drift(baseline(channels=1), window(50, seed=1, channels=1), 0.01)]
    assert one[:3] == ["brightness", "contrast", "confidence"]
    table = replace(baseline(channels=2), picture=False)
    columns = detect_drift(table, window(50, seed=1, channels=2), 0.01)
    assert [column.label for column in columns][:4] == [
        "mean of channel 0", "mean of channel 1", "deviation of channel 0", "deviation of channel 1",
    ]  # fmt: skip
    assert [column.group for column in columns] == ["inputs"] * 4 + ["predictions"] * 2


def test_each_column_keeps_both_sides_and_their_medians() -> None:
    reference, seen = baseline(), window(101, seed=1)
    seen.input_mean[0, 1] = np.nan
    columns = by_name(detect_drift(reference, seen, 0.01))
    for channel in range(3):
        mean, std = columns[f"input_mean_{channel}"], columns[f"input_std_{channel}"]
        assert mean.now == pytest.approx(np.nanmedian(seen.input_mean[:, channel]))
        assert std.before == pytest.approx(np.median(reference.input_std[channel]))
        assert np.array_equal(mean.sample, seen.input_mean[:, channel], equal_nan=True)
        assert np.array_equal(std.reference, reference.input_std[channel])
    confidence = columns["confidence"]
    assert confidence.sample == pytest.approx(seen.confidence, abs=6e-5)
    assert len(np.unique(np.round(confidence.sample * 1e4, 6) % 1)) == 1  # on the grid
    assert columns["classes"].sample.tolist() == [*np.bincount(seen.predicted, minlength=6), 0]
    assert columns["classes"].reference.tolist() == [*reference.class_counts, 0]


def test_significance_is_by_the_rate_over_all_columns() -> None:
    reference, seen = baseline(), window(200, seed=3, shift=0.2)
    p = [column.p for column in detect_drift(reference, seen, 0.01)]
    for fdr in (0.001, 0.05, 0.5):
        columns = detect_drift(reference, seen, fdr)
        expected = false_discovery_control(p)
        assert [column.q for column in columns] == pytest.approx(expected)
        assert [column.is_significant for column in columns] == (expected <= fdr).tolist()


@pytest.mark.parametrize(
    ("predicted", "label"), [(-1, "unknown classes"), (6, "unknown classes"), (5, "'f'"), (0, "'a'")]
)
def test_the_class_that_changed_most_stands_for_all(predicted: int, label: str) -> None:
    seen = window(300, seed=1)
    seen.predicted[:] = predicted
    classes = by_name(detect_drift(baseline(), seen, 0.01))["classes"]
    counts = baseline().class_counts
    before = counts[predicted] / counts.sum() if 0 <= predicted < 6 else 0
    assert (classes.label, classes.now) == (f"share of {label}", 1)
    assert classes.before == pytest.approx(before)
    assert classes.distance == pytest.approx(1 - before)


@pytest.mark.parametrize(("q", "text"), [(0.0, "< 1e-9"), (9e-10, "< 1e-9"), (1e-9, "= 1e-09"), (0.0123, "= 0.012")])
def test_the_q_value_in_words(q: float, text: str) -> None:
    column = detect_drift(baseline(), window(100, seed=1), 0.01)[0]
    shown = replace(column, q=q, before=78.24, now=140.4).format_change()
    assert shown == f"brightness of channel 0 78.2 → 140, q {text}"
    assert replace(column, name="classes", q=q, before=0.25, now=0.5).format_change().endswith(f"25 % → 50 %, q {text}")


def test_deviations_of_other_channels_are_refused_too() -> None:
    seen = window(300, seed=1)
    with pytest.raises(MLScaleError, match=r"its reference profile 3") as caught:
        detect_drift(baseline(), replace(seen, input_std=seen.input_std[:, :2]), 0.01)
    assert caught.value.where == "events"


def test_a_column_without_a_number_has_no_median() -> None:
    broken = window(20, seed=1)
    broken.input_mean[:, 0] = np.inf
    assert np.isnan(by_name(detect_drift(baseline(), broken, 0.01))["input_mean_0"].now)
