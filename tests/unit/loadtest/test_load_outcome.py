"""Counting what comes back, and holding it against an objective."""

import json

import pytest

from mlscale.loadtest.load_outcome import LoadOutcome, Objective, ServerTime
from mlscale.loadtest.slo_verdict import evaluate_objective


def outcome(*latencies: float, failures: tuple[str, ...] = (), seconds: float = 2.0) -> LoadOutcome:
    made = LoadOutcome(seconds=seconds)
    for ms in latencies:
        made.record_answer(ms, "m:v1", 1, ("a",), ("a" if ms < 10 else "b",))
    for why in failures:
        made.record_failure(why)
    return made


def missed(objective: Objective, found: LoadOutcome) -> list[str]:
    return list(evaluate_objective(objective, found, users=1).missed)


def test_counts() -> None:
    found = outcome(1.0, 2.0, 30.0, failures=("status 503",))
    assert (found.requests, found.failed_requests, found.requests_per_s) == (4, 1, 1.5)
    assert (found.labelled, found.correct, dict(found.versions)) == (3, 2, {"m:v1": 3})
    assert LoadOutcome.from_document(json.loads(json.dumps(found, default=vars))) == found


def test_the_servers_time_is_counted_apart() -> None:
    found = outcome()
    found.record_answer(10.0, "m:v1", 1, None, None, ServerTime(4.0, 3.0, 2.0))
    found.record_answer(10.0, "m:v1", 1, None, None, ServerTime(12.0))  # clocks differ by a little
    found.record_answer(10.0, "m:v1", 1, None, None)
    found.client.cpu_s = 1.5
    parts = (found.server, found.service, found.compute, found.network)
    assert [(part.count, part.total) for part in parts] == [(2, 16.0), (1, 3.0), (1, 2.0), (2, 6.0)]
    assert LoadOutcome.from_document(json.loads(json.dumps(found, default=vars))) == found


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
def test_each_term_that_is_missed_is_reported(objective: Objective, phrases: list[str]) -> None:
    found = missed(objective, outcome(1.0, 2.0, 30.0))
    assert len(found) == len(phrases)
    assert all(phrase in reported for reported, phrase in zip(found, phrases, strict=True))


def test_failures_are_bounded() -> None:
    found = outcome(1.0, failures=("status 503", "status 503", "no answer"))
    assert missed(Objective(), found) == ["3 of 4 requests failed (2 × status 503, 1 × no answer)"]
    assert missed(Objective(max_failures=3), found) == []
    assert missed(Objective(max_failures=None), found) == []


def test_no_requests_hold_nothing() -> None:
    assert missed(Objective(max_failures=None), LoadOutcome(seconds=1.0)) == ["no request came to an end"]


def test_only_failures_hold_no_latency() -> None:
    failed = outcome(failures=("status 400: no", "status 400: no", "no answer"))
    # A client that is refused at once is busy, and that is no excuse.
    failed.client.cpu_s = 0.99 * failed.seconds
    verdict = evaluate_objective(Objective(p99_ms=50, max_failures=None), failed, users=1)
    assert verdict.missed == ("no request had a valid answer: 2 × status 400: no, 1 × no answer",)
    assert (verdict.limits, verdict.decision) == ((), "missed")
