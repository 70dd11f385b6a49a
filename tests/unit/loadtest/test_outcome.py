"""Counting what comes back, and holding it against an objective."""

import pytest

from mlscale.errors import MLScaleError
from mlscale.loadtest.outcome import Objective, Outcome


def outcome(*latencies: float, failures: tuple[str, ...] = (), seconds: float = 2.0) -> Outcome:
    made = Outcome(seconds=seconds)
    for ms in latencies:
        made.answered(ms, "m:v1", 1, ("a",), ("a" if ms < 10 else "b",))
    for why in failures:
        made.failed(why)
    return made


def test_counts() -> None:
    found = outcome(1.0, 2.0, 30.0, failures=("status 503",))
    assert (found.requests, found.failed_requests, found.requests_per_s) == (4, 1, 1.5)
    assert (found.labelled, found.correct, dict(found.versions)) == (3, 2, {"m:v1": 3})
    assert Outcome.from_dict(found.as_dict()).as_dict() == found.as_dict()


def test_no_end_of_kinds_of_failures() -> None:
    found = outcome(failures=tuple(f"why {i}" for i in range(100)))
    assert len(found.failures) == 21
    assert found.failures["others"] == 80


@pytest.mark.parametrize(
    ("objective", "phrases"),
    [
        (Objective(p50_ms=2.5, p99_ms=40, min_requests_per_s=1), []),
        (Objective(p50_ms=1.5), ["ms, more than slo.p50_ms=1.5"]),
        (Objective(p95_ms=5, p99_ms=5), ["more than slo.p95_ms=5", "more than slo.p99_ms=5"]),
        (Objective(min_requests_per_s=2), ["1.5 requests/s, fewer than slo.min_requests_per_s=2"]),
    ],
)
def test_each_term_that_is_missed_is_told(objective: Objective, phrases: list[str]) -> None:
    missed = objective.missed(outcome(1.0, 2.0, 30.0))
    assert len(missed) == len(phrases)
    assert all(phrase in told for told, phrase in zip(missed, phrases, strict=True))


def test_failures_are_bounded() -> None:
    found = outcome(1.0, failures=("status 503", "status 503", "no answer"))
    assert Objective().missed(found) == ["3 of 4 requests failed (2 × status 503, 1 × no answer)"]
    assert Objective(max_failures=3).missed(found) == []
    assert Objective(max_failures=None).missed(found) == []


def test_no_requests_hold_nothing() -> None:
    assert Objective(max_failures=None).missed(Outcome(seconds=1.0)) == ["no request came to an end"]


def test_only_failures_hold_no_latency() -> None:
    missed = Objective(p99_ms=50, max_failures=None).missed(outcome(failures=("no answer",)))
    assert missed == ["p99 is nan ms, more than slo.p99_ms=50"]


def test_a_term_below_zero_is_none() -> None:
    with pytest.raises(MLScaleError, match=r"slo\.p99_ms is -1"):
        Objective(p99_ms=-1)
