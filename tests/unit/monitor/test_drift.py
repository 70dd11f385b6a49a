"""Drift: what is found, what is too small to count, and how often a clean window cries wolf."""

from dataclasses import replace

import numpy as np
import pytest

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
