"""What one look says, of whatever it sees and of what it can not know."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from mlscale.monitor.window_check import MonitorLimits, RuleResult, WindowCheck, check_rules
from tests.unit.monitor.conftest import baseline, window


def signal(seen: WindowCheck, rule: str) -> RuleResult:
    found = seen.find_result(rule)
    assert found is not None
    return found


def test_all_is_well() -> None:
    seen = check_rules(baseline(), window(1000, seed=1, labelled=300), MonitorLimits(p99_ms=50))
    assert [each.rule for each in seen.results if each.is_over] == []
    assert seen.sentence.startswith("m:v1: no drift in 1,000 events, accuracy 9")
    assert "of 300 labelled, reference 99 %, p99 " in seen.sentence
    metrics = seen.metrics
    assert [metrics[name] for name in ("drift", "damage", "latency", "failures", "no_data")] == [0] * 5
    assert metrics["events"] == 1000
    assert 0 < metrics["p50_latency_ms"] < metrics["p99_latency_ms"]


def test_drift_is_not_damage() -> None:
    seen = check_rules(baseline(), window(1000, seed=1, shift=1, labelled=300), MonitorLimits())
    assert (signal(seen, "drift").is_over, signal(seen, "damage").is_over) == (True, False)
    assert "inputs drifted (brightness of channel" in seen.sentence
    assert "damage" not in seen.sentence


def test_drift_and_damage() -> None:
    seen = check_rules(baseline(), window(1000, seed=1, shift=1, labelled=300, right=0.7), MonitorLimits())
    assert signal(seen, "damage").is_over
    assert ", reference 99 %: degradation" in seen.sentence
    assert seen.metrics["accuracy_high"] < 0.94


def test_drift_without_labels_asks_for_them() -> None:
    seen = check_rules(baseline(), window(1000, seed=1, shift=1), MonitorLimits())
    assert signal(seen, "damage").level is None
    assert seen.sentence.endswith("labels would show whether accuracy degraded")


def test_damage_is_what_surely_exceeds_the_tolerance() -> None:
    few = check_rules(baseline(), window(1000, seed=1, labelled=60, right=0.9), MonitorLimits())
    many = check_rules(baseline(), window(1000, seed=1, labelled=2000, right=0.9), MonitorLimits())
    assert not signal(few, "damage").is_over  # 90 % of 60 may be 95 %
    assert signal(many, "damage").is_over
    assert not signal(
        check_rules(baseline(), window(1000, seed=1, labelled=2000, right=0.9), MonitorLimits(tolerance=0.1)), "damage"
    ).is_over


@pytest.mark.parametrize("wrong", [0, 6, 7, 10, 11, 30])
def test_the_upper_end_of_the_accuracy_decides(wrong: int) -> None:
    """Of 100 labels: from 7 wrong on the accuracy is 6 points below the reference, and from 11 on surely so."""
    seen = window(1000, seed=1, labelled=100)
    seen.is_correct[:] = np.arange(100) >= wrong
    damage = signal(check_rules(baseline(), seen, MonitorLimits()), "damage")
    high = binomtest(100 - wrong, 100).proportion_ci(method="wilson").high
    assert damage.level == pytest.approx(max(0, (0.99 - high) / 0.05))
    assert damage.is_over == (wrong >= 11)


def test_too_little_is_a_state_of_its_own() -> None:
    seen = check_rules(baseline(), window(99, seed=1, labelled=49, shift=3), MonitorLimits(p99_ms=1))
    assert [each.level for each in seen.results if each.rule != "no_data"] == [None] * 4
    assert signal(seen, "no_data").is_over
    assert seen.sentence == "m:v1: no data (99 events in the window, 100 are needed)"
    assert math.isnan(seen.metrics["drift"])
    nothing = check_rules(baseline(), window(0, seed=1, channels=0), MonitorLimits())
    assert nothing.metrics["no_data"] == 1


def test_no_data_does_not_hide_damage() -> None:
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
