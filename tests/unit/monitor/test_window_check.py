"""What one look says, of whatever it sees and of what it can not know."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from mlscale.monitor.score_change import format_rounded_percent
from mlscale.monitor.window_check import MonitorLimits, RuleResult, WindowCheck, check_rules
from mlscale.reference.column_sketch import ScoreReference
from mlscale.stats.intervals import compute_quantile_interval, compute_wilson_interval
from mlscale.task_types.registry import get_task_type
from tests.unit.monitor.conftest import baseline, score_of, window


def signal(seen: WindowCheck, rule: str) -> RuleResult:
    found = seen.find_result(rule)
    assert found is not None
    return found


def test_all_is_well() -> None:
    seen = check_rules(baseline(), window(1000, seed=1, labelled=300), MonitorLimits(p99_ms=50))
    assert [each.rule for each in seen.results if each.is_over] == []
    assert seen.sentence.startswith("m:v1: no drift of single columns in 1,000 events, accuracy 9")
    assert "of 300 labelled, reference 99 %, p99 " in seen.sentence
    metrics = seen.metrics
    assert [metrics[name] for name in ("drift", "degradation", "latency", "failures", "no_data")] == [0] * 5
    assert metrics["events"] == 1000
    assert 0 < metrics["p50_latency_ms"] < metrics["p99_latency_ms"]


def test_drift_is_not_degradation() -> None:
    seen = check_rules(baseline(), window(1000, seed=1, shift=1, labelled=300), MonitorLimits())
    assert (signal(seen, "drift").is_over, signal(seen, "degradation").is_over) == (True, False)
    assert "inputs drifted (brightness of channel" in seen.sentence
    assert "degradation" not in seen.sentence


def test_drift_and_degradation() -> None:
    seen = check_rules(baseline(), window(1000, seed=1, shift=1, labelled=300, right=0.7), MonitorLimits())
    assert signal(seen, "degradation").is_over
    assert ", reference 99 %: degradation" in seen.sentence
    assert seen.metrics["accuracy_high"] < 0.94


def test_a_large_distance_that_dependent_events_can_not_show_is_undecided() -> None:
    calm = window(1000, seed=1, labelled=300)
    name = next(name for name, values in calm.columns.items() if values.dtype.kind == "f")
    values = calm.columns[name].astype(np.float64)
    slow = values.mean() + values.std() * (0.5 + 1.5 * np.sin(np.linspace(0, 2 * np.pi, 1000)))
    seen = check_rules(baseline(), replace(calm, columns={**calm.columns, name: slow}), MonitorLimits())
    assert not signal(seen, "drift").is_over
    assert "is undecided: by a memory or a cycle 1,000 events are worth" in seen.sentence
    assert "undecided" not in check_rules(baseline(), calm, MonitorLimits()).sentence


def test_drift_without_labels_asks_for_them() -> None:
    seen = check_rules(baseline(), window(1000, seed=1, shift=1), MonitorLimits())
    assert signal(seen, "degradation").level is None
    assert seen.sentence.endswith("labels would show whether accuracy degraded")


def test_degradation_is_what_surely_exceeds_the_tolerance() -> None:
    few = check_rules(baseline(), window(1000, seed=1, labelled=60, right=0.9), MonitorLimits())
    many = check_rules(baseline(), window(1000, seed=1, labelled=2000, right=0.9), MonitorLimits())
    assert not signal(few, "degradation").is_over  # 90 % of 60 may be 95 %
    assert signal(many, "degradation").is_over
    assert not signal(
        check_rules(baseline(), window(1000, seed=1, labelled=2000, right=0.9), MonitorLimits(tolerance=0.1)),
        "degradation",
    ).is_over


@pytest.mark.parametrize("wrong", [0, 6, 7, 10, 11, 30])
def test_the_upper_end_of_the_accuracy_decides(wrong: int) -> None:
    """Of 100 labels: from 7 wrong on the accuracy is 6 points below the reference, and from 11 on surely so."""
    seen = window(1000, seed=1, labelled=100)
    seen.scores[:] = np.arange(100) >= wrong
    degradation = signal(check_rules(baseline(), seen, MonitorLimits()), "degradation")
    high = binomtest(100 - wrong, 100).proportion_ci(method="wilson").high
    assert degradation.level == pytest.approx(max(0, (0.99 - high) / 0.05))
    assert degradation.is_over == (wrong >= 11)


def test_too_little_is_a_state_of_its_own() -> None:
    seen = check_rules(baseline(), window(99, seed=1, labelled=49, shift=3), MonitorLimits(p99_ms=1))
    assert [each.level for each in seen.results if each.rule != "no_data"] == [None] * 4
    assert signal(seen, "no_data").is_over
    assert seen.sentence == "m:v1: no data (99 events in the window, 100 are needed)"
    assert math.isnan(seen.metrics["drift"])
    nothing = check_rules(baseline(), window(0, seed=1, channels=0), MonitorLimits())
    assert nothing.metrics["no_data"] == 1


@pytest.mark.parametrize(("others", "level"), [(79, 1.0), (80, None)])
def test_a_new_champion_beside_others_that_answer_is_no_dead_service(others: int, level: float | None) -> None:
    seen = replace(window(20, seed=1), others=Counter({"m:v0": others}))
    result = signal(check_rules(baseline(), seen, MonitorLimits()), "no_data")
    assert result.level == level
    assert result.sentence == f"no data (20 events in the window, 100 are needed; {others} are of m:v0)"


def test_no_data_does_not_hide_degradation() -> None:
    seen = check_rules(baseline(), window(20, seed=1, labelled=300, right=0.5), MonitorLimits())
    assert "no data" in seen.sentence
    assert ": degradation" in seen.sentence


@pytest.mark.parametrize(("limit", "over"), [(5.0, True), (20.0, False), (None, False)])
def test_latency_against_its_limit(limit: float | None, over: bool) -> None:
    seen = check_rules(baseline(), window(1000, seed=1, latency_ms=2.0), MonitorLimits(p99_ms=limit))  # p99 is 9.2 ms
    assert signal(seen, "latency").is_over is over
    assert ("over the 5 ms allowed" in seen.sentence) is over


def test_a_server_that_only_fails_is_not_without_data() -> None:
    seen = check_rules(baseline(), window(0, seed=1, channels=0, rejected=500), MonitorLimits())
    assert signal(seen, "failures").is_over
    assert not signal(seen, "no_data").is_over
    assert "100 % of 500 requests rejected or failed" in seen.sentence
    assert not signal(
        check_rules(baseline(), window(1000, seed=1, rejected=60), MonitorLimits()), "failures"
    ).is_over  # 5.7 % may be 5 %
    assert signal(check_rules(baseline(), window(1000, seed=1, rejected=90), MonitorLimits()), "failures").is_over
    assert not signal(
        check_rules(baseline(), window(9, seed=1, rejected=900), MonitorLimits(max_failures=None)), "failures"
    ).is_over


def test_the_metrics_of_all_rules_by_name_and_value() -> None:
    latency = np.arange(1, 101, dtype=np.float32)
    seen = replace(window(100, seed=1, labelled=50, rejected=3), latency_ms=latency, failed=2)
    seen.scores[:] = np.arange(50) < 45
    checked = check_rules(baseline(), seen, MonitorLimits(p99_ms=1000))
    accuracy = binomtest(45, 50).proportion_ci(method="wilson")
    distances = [column.distance for column in checked.columns]
    expected: dict[str, float] = {
        "events": 105,
        "drift": 0,
        "degradation": 0,
        "latency": 0,
        "failures": 0,
        "no_data": 0,
    }
    expected |= {"drifted_columns": 0, "detected_columns": 0, "cycle_or_drift_columns": 0, "columns": 8}
    expected |= {"largest_distance": max(distances)}
    expected |= {"smallest_q": min(column.q for column in checked.columns)}
    for column in checked.columns:
        expected |= {f"{column.metric_name}_distance": column.distance, f"{column.metric_name}_q": column.q}
    expected |= {"labelled_events": 50, "reference_accuracy": 0.99, "accuracy": 0.9}
    expected |= {"accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
    expected |= {"p50_latency_ms": compute_quantile_interval(latency, 0.5).value}
    expected |= {"p99_latency_ms": compute_quantile_interval(latency, 0.99).value}
    expected |= {"rejected_share": 3 / 105, "failed_share": 2 / 105}
    assert checked.metrics == pytest.approx(expected)
    assert signal(checked, "failures").level == pytest.approx(
        binomtest(5, 105).proportion_ci(method="wilson").low / 0.05
    )
    assert checked.sentence == (
        "m:v1: no drift of single columns in 100 events, accuracy 90 % of 50 labelled, reference 99 %, "
        "surely worse, not surely by more than the tolerance, p99 "
        f"{checked.metrics['p99_latency_ms']:.3g} ms, 4.76 % of 105 requests rejected or failed"
    )


@pytest.mark.parametrize("confidence", [0.5, 0.999])
def test_confidence_is_of_every_interval(confidence: float) -> None:
    latency = np.arange(1, 401, dtype=np.float32)
    seen = replace(window(400, seed=1, labelled=50, rejected=20), latency_ms=latency)
    seen.scores[:] = np.arange(50) < 40
    checked = check_rules(baseline(), seen, MonitorLimits(p99_ms=100, confidence=confidence))
    accuracy = compute_wilson_interval(40, 50, confidence)
    assert checked.metrics["accuracy_low"] == accuracy.low
    assert checked.metrics["accuracy_high"] == accuracy.high
    assert signal(checked, "latency").level == compute_quantile_interval(latency, 0.99, confidence).low / 100
    assert signal(checked, "failures").level == compute_wilson_interval(20, 420, confidence).low / 0.05


@pytest.mark.parametrize(("events", "labels"), [(99, 49), (100, 50)])
def test_each_rule_decides_from_its_number_of_events_on(events: int, labels: int) -> None:
    seen = window(events, seed=1, labelled=labels)
    checked = check_rules(baseline(), seen, MonitorLimits(p99_ms=50))
    decided = events == 100
    assert [result.level is not None for result in checked.results] == [decided] * 4 + [True]
    assert signal(checked, "no_data").is_over != decided
    nan = [name for name, value in checked.metrics.items() if math.isnan(value)]
    absent = ["drift", "degradation", "latency", "failures", "largest_distance", "smallest_q", "accuracy"]
    assert nan == ([] if decided else [*absent, "p50_latency_ms", "p99_latency_ms"])


def test_events_without_an_answer_do_not_count_for_drift_and_latency() -> None:
    seen = window(99, seed=1, rejected=500)
    checked = check_rules(baseline(), seen, MonitorLimits(p99_ms=50))
    assert [signal(checked, rule).level for rule in ("drift", "latency")] == [None, None]
    assert "too few events for drift (99 of 100)" in checked.sentence
    assert "accuracy unknown (0 labelled events of 50)" in checked.sentence
    unknown = window(100, seed=1)
    unknown.latency_ms[0] = np.nan
    assert signal(check_rules(baseline(), unknown, MonitorLimits(p99_ms=50)), "latency").level is None


def test_the_farthest_significant_column_gives_the_level() -> None:
    seen = window(1000, seed=1, shift=1)
    columns = check_rules(baseline(), seen, MonitorLimits()).columns
    shifted = sorted((column for column in columns if column.is_detected), key=lambda column: column.distance)
    assert len(shifted) == 3
    farthest = shifted[-1].distance
    for limit, over in ((farthest, True), (np.nextafter(farthest, 1), False)):
        checked = check_rules(baseline(), seen, MonitorLimits(min_distance=limit))
        drift = signal(checked, "drift")
        assert drift.level == farthest / limit
        assert (drift.is_over, drift.metrics["drifted_columns"]) == (over, over)
    for limit, more in ((shifted[1].distance, "; and 1 more)"), (shifted[0].distance, "; and 2 more)")):
        drift = signal(check_rules(baseline(), seen, MonitorLimits(min_distance=limit)), "drift")
        assert drift.sentence.startswith(f"inputs drifted ({shifted[-1].format_change()}{more}")


def test_the_distance_of_a_column_is_its_largest_one() -> None:
    """A share of values out of the range is smaller than the distance of the distributions."""
    seen = window(1000, seed=1)
    # Scattered, since one change in the middle is no independent evidence.
    is_far = np.random.default_rng(2).random(1000) < 0.6
    seen.columns["input.mean_0"][:] += np.where(is_far, 1000, 30)
    columns = check_rules(baseline(), seen, MonitorLimits()).columns
    assert {column.kind for column in columns if column.name == "input.mean_0"} >= {"range", "distribution"}
    metrics = check_rules(baseline(), seen, MonitorLimits()).metrics
    apart = [column for column in columns if column.name == "input.mean_0"]
    assert metrics["input_mean_0_distance"] == max(column.distance for column in apart) == metrics["largest_distance"]
    assert metrics["input_mean_0_distance"] > 0.7
    assert metrics["input_mean_0_q"] == min(column.q for column in apart)


def test_a_new_category_is_reported_once() -> None:
    seen = window(1000, seed=1)
    seen.columns["output.label"][::10] = "new"
    drift = signal(check_rules(baseline(), seen, MonitorLimits(min_distance=0.05)), "drift")
    assert "new category 'new' (10 %)" in drift.sentence
    assert "share of" not in drift.sentence


def test_values_of_another_unit_are_not_hidden_by_the_size_of_a_shift() -> None:
    seen = window(1000, seed=1)
    seen.columns["input.mean_0"][::4] *= 14.5
    seen.columns["input.mean_0"][1::4] += 15
    seen.columns["input.mean_0"][2::4] += 15
    drift = signal(check_rules(baseline(), seen, MonitorLimits()), "drift")
    assert "is out of the reference's range in 2" in drift.sentence


def test_drift_of_predictions_is_reported_apart() -> None:
    seen = window(1000, seed=1)
    seen.columns["output.label"][:500] = "f"
    drift = signal(check_rules(baseline(), seen, MonitorLimits()), "drift")
    assert drift.sentence.startswith("outputs drifted (predicted class share of 'f' higher (2.5 % → 5")
    assert "more" not in drift.sentence
    for channel in range(3):
        seen.columns[f"input.mean_{channel}"][:] += 40
    both = signal(check_rules(baseline(), seen, MonitorLimits()), "drift").sentence
    assert both.startswith("inputs drifted (brightness of channel ")
    assert f", {drift.sentence.partition(', q')[0]}" in both


@pytest.mark.parametrize(("channels", "reported"), [(9, 20), (12, 10)])
def test_a_model_of_many_channels_reports_the_ten_that_drifted_most(channels: int, reported: int) -> None:
    checked = check_rules(baseline(channels=channels), window(500, seed=1, shift=1, channels=channels), MonitorLimits())
    names = [name.removesuffix("_distance") for name in checked.metrics if name.endswith("_distance")]
    names.remove("largest")
    farthest = sorted(checked.columns, key=lambda column: -column.distance)[:10]
    assert names == [column.metric_name for column in (farthest if channels == 12 else checked.columns)]
    assert len(names) == reported


def test_a_limit_that_is_reached_is_over_it() -> None:
    seen = window(1000, seed=1, labelled=100, rejected=100)
    low = compute_quantile_interval(seen.latency_ms, 0.99).low
    for limit, over in ((low, True), (np.nextafter(low, np.inf), False)):
        latency = signal(check_rules(baseline(), seen, MonitorLimits(p99_ms=limit)), "latency")
        assert (latency.is_over, ", over the " in latency.sentence) == (over, over)
        assert latency.level == low / limit
    assert RuleResult("latency", 1.0, "").is_over
    assert not RuleResult("latency", None, "").is_over


def test_rules_without_a_limit() -> None:
    known = check_rules(baseline(), window(1000, seed=1, rejected=900), MonitorLimits(max_failures=None))
    assert (signal(known, "latency").level, signal(known, "latency").sentence) == (0, "")
    assert (signal(known, "failures").level, signal(known, "failures").sentence) == (0, "")
    assert known.metrics["rejected_share"] == 900 / 1900
    assert known.metrics["p50_latency_ms"] < known.metrics["p99_latency_ms"]
    nothing = check_rules(baseline(), window(0, seed=1), MonitorLimits(max_failures=None))
    assert nothing.find_result("latency") is None
    assert signal(nothing, "failures").level is None
    assert math.isnan(nothing.metrics["rejected_share"])
    assert math.isnan(nothing.metrics["failed_share"])


def test_too_few_events_leave_failures_undecided() -> None:
    few = check_rules(baseline(), window(9, seed=1, rejected=90), MonitorLimits())
    assert (few.events, signal(few, "failures").level) == (99, None)
    assert few.sentence == "m:v1: no data (99 events in the window, 100 are needed)"
    none_failed = signal(check_rules(baseline(), window(100, seed=1), MonitorLimits()), "failures")
    assert (none_failed.level, none_failed.sentence) == (0, "")
    one = signal(check_rules(baseline(), window(99, seed=1, rejected=1), MonitorLimits()), "failures")
    assert one.sentence == "1 % of 100 requests rejected or failed"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.9876, "98.8 %"),
        (0.99, "99 %"),
        (0.9999, "99.99 %"),
        (0.9912, "99.1 %"),
        (1, "100 %"),
        (0.5, "50 %"),
        (0.0123, "1.23 %"),
    ],
)
def test_a_share_is_rounded_but_never_up_to_all(share: float, text: str) -> None:
    assert format_rounded_percent(share) == text


def test_an_accuracy_that_is_just_too_low_is_a_degradation_and_latencies_may_be_below_a_millisecond() -> None:
    seen = window(1000, seed=1, labelled=500)
    high = compute_wilson_interval(int(seen.scores.sum()), 500, 0.95).high
    limits = MonitorLimits(tolerance=0.01, confidence=0.95, p99_ms=5)
    for loss, named in ((0.015, True), (0.005, False)):
        degradation = signal(check_rules(baseline(score=score_of(high + loss)), seen, limits), "degradation")
        assert degradation.level == pytest.approx(100 * loss)
        assert degradation.sentence.endswith(": degradation") is named
    quick = replace(seen, latency_ms=np.full(1000, 0.25, np.float32))
    assert signal(check_rules(baseline(), quick, limits), "latency").level == pytest.approx(0.05)


def test_degradation_by_an_error_in_the_unit_of_the_target() -> None:
    values = np.random.default_rng(0).exponential(300, 1000)
    score = ScoreReference("absolute_error", False, "g", False, False, 300.0, 1000, values)
    regression = replace(baseline(score=score), task_type=get_task_type("regression"))
    for factor, named in ((1.0, False), (2.0, True)):
        seen = replace(window(1000, seed=1), scores=factor * np.random.default_rng(1).exponential(300, 400), unscored=3)
        checked = check_rules(regression, seen, MonitorLimits())
        degradation = signal(checked, "degradation")
        assert degradation.is_over is named
        assert degradation.sentence.startswith("absolute error ")
        end = " g over 400 labelled, reference 300 g, 3 labels do not fit their predictions"
        assert degradation.sentence.endswith(end + ": degradation" * named)
        names = ("labelled_events", "reference_absolute_error", "absolute_error")
        assert list(degradation.metrics) == [*names, "absolute_error_low", "absolute_error_high"]


def test_a_type_that_needs_no_labels_never_asks_for_them() -> None:
    score = ScoreReference("nats_per_token", False, "nats", False, False, 2.0, 100, np.linspace(1, 3, 100))
    language = replace(baseline(score=score), task_type=get_task_type("language"))
    few = check_rules(language, window(1000, seed=1, shift=1), MonitorLimits())
    assert "nats per token unknown (0 events of 50)" in few.sentence
    assert "labels" not in few.sentence
    seen = replace(window(1000, seed=1), scores=np.tile([2.0, 5.0], 500))
    assert (
        "nats per token 3.5 over 1,000 events, reference 2: degradation"
        in check_rules(language, seen, MonitorLimits()).sentence
    )


def test_a_model_without_a_score_is_not_checked_for_degradation() -> None:
    checked = check_rules(replace(baseline(), score=None), window(1000, seed=1, shift=1), MonitorLimits())
    assert checked.find_result("degradation") is None
    assert "labels" not in checked.sentence
    assert "reference_accuracy" not in checked.metrics


@pytest.mark.parametrize(
    ("time", "is_new"),
    [("", True), ("2026-03-01T00:00:00", True), ("2026-03-01T00:00:01", True), ("2026-03-01T00:00:02", False)],
)
def test_a_window_is_new_with_half_of_its_events_after_a_time(time: str, is_new: bool) -> None:
    times = np.datetime64("2026-03-01", "us") + np.arange(4) * np.timedelta64(1_000_000, "us")
    check = WindowCheck("m:v1", (), (), 4, times)
    assert check.newest == "2026-03-01T00:00:03.000000"
    assert check.is_new_since(time) is is_new


def test_a_window_of_unknown_times_is_new() -> None:
    check = WindowCheck("m:v1", (), (), 4)
    assert check.newest == ""
    assert check.is_new_since("2026-03-01T00:00:00")


def test_small_and_held_changes_are_phrases_of_their_own() -> None:
    small = check_rules(baseline(), window(10_000, seed=1, shift=0.2), MonitorLimits(min_distance=0.9))
    assert "detected, too small for an alert (" in small.sentence
    assert not signal(small, "drift").is_over
    over = check_rules(baseline(), window(10_000, seed=1, shift=3), MonitorLimits(min_distance=0.05))
    assert "too small for an alert" not in over.sentence
    assert signal(over, "drift").is_over
