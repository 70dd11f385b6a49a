"""What is known of an objective: met, missed, or undecided because the client was the limit and not the server."""

import pytest

from mlscale.loadtest.client_load import ClientLoad, read_usage
from mlscale.loadtest.latency_histogram import LatencyHistogram
from mlscale.loadtest.load_outcome import LoadOutcome, Objective, ServerTime
from mlscale.loadtest.slo_verdict import evaluate_objective

CLOSED_RATE = 50.0  # requests/s of the outcomes below
CALM, BUSY, STARVED = (0.5, 0.2), (1.9, 0.0), (0.3, 1.6)  # of 2 s: computing, waiting for a core


def same(ms: float, count: int = 100) -> LatencyHistogram:
    made = LatencyHistogram()
    for _ in range(count):
        made.add_latency(ms)
    return made


def outcome(
    ms: float = 10.0,
    *,
    client: tuple[float, float] = CALM,
    empty: tuple[float, float] | None = (1000.0, 1.0),
    lag: float = 1.0,
    server: ServerTime | None = None,
    failures: tuple[str, ...] = (),
) -> LoadOutcome:
    """100 answers of `ms` in 2 s; `empty`: requests/s and latency that the client gets from an empty server."""
    made = LoadOutcome(seconds=2.0)
    for _ in range(100):
        made.record_answer(ms, "m:v1", 1, None, None, server)
    for why in failures:
        made.record_failure(why)
    rate, own = empty or (0.0, 0.0)
    made.client = ClientLoad(*client, same(lag), rate, same(own) if empty else LatencyHistogram())
    return made


def decided(objective: Objective, found: LoadOutcome, users: int = 2, rate: float | None = None) -> str:
    return evaluate_objective(objective, found, users=users, rate=rate).decision


@pytest.mark.parametrize("client", [BUSY, STARVED])
def test_what_a_client_at_its_limit_misses_is_undecided(client: tuple[float, float]) -> None:
    for objective in (Objective(p50_ms=5), Objective(p99_ms=5), Objective(min_requests_per_s=60)):
        assert decided(objective, outcome()) == "missed"
        verdict = evaluate_objective(objective, outcome(client=client), users=2)
        assert (verdict.decision, len(verdict.undecided), verdict.missed) == ("undecided", 1, ())
        assert "busy for 95% of the time" in verdict.limits[0]


def test_a_server_that_hardly_counts_leaves_it_undecided() -> None:
    near = outcome(empty=(CLOSED_RATE / 0.85, 9.0))
    assert decided(Objective(min_requests_per_s=60), near) == "undecided"
    (why,) = evaluate_objective(Objective(), near, users=2).limits
    assert why == "it gets 59 requests/s from a server that answers at once, 50 here"
    assert decided(Objective(min_requests_per_s=60), outcome(empty=(CLOSED_RATE / 0.75, 9.0))) == "missed"
    assert not evaluate_objective(Objective(), near, users=2, rate=50.0).limits  # a rate that is reached says nothing


@pytest.mark.parametrize("alone", [{"empty": (1000.0, 9.0)}, {"lag": 9.0}])
def test_a_client_that_takes_longer_by_itself_leaves_it_undecided(alone: dict[str, object]) -> None:
    found = outcome(**alone)  # type: ignore[arg-type]
    assert decided(Objective(p95_ms=5), found) == "undecided"
    assert decided(Objective(p95_ms=9.5), found) == "missed"  # the client alone would meet it
    slow = outcome(95.0, **alone)  # type: ignore[arg-type]
    assert decided(Objective(p95_ms=5), slow) == "missed"  # far more than the client's


def test_the_servers_own_time_decides_whatever_the_client() -> None:
    slow, queued = ServerTime(9.0, 9.0, 8.0), ServerTime(9.0, 8.0, 1.0)
    assert decided(Objective(p99_ms=5), outcome(client=BUSY, server=slow)) == "missed"
    assert decided(Objective(p99_ms=5), outcome(client=BUSY, server=queued)) == "undecided"  # bursts wait in it
    assert decided(Objective(p99_ms=5), outcome(client=BUSY, server=ServerTime(9.0))) == "undecided"


def test_the_time_of_the_client_is_not_the_servers() -> None:
    inside = outcome(286.0, server=ServerTime(84.0, 80.0, 2.0))
    verdict = evaluate_objective(Objective(p99_ms=100), inside, users=2)
    assert verdict.undecided == ("p99 is 286 ms, more than slo.p99_ms=100, but only 84 ms in the server",)
    assert verdict.decision == "undecided"
    assert decided(Objective(p99_ms=80), inside) == "missed"
    assert decided(Objective(p99_ms=100), outcome(286.0)) == "missed"  # a server that does not report its time


def test_a_machine_with_too_many_processes_fails_no_server() -> None:
    found = outcome(286.0, client=(0.2, 0.5), server=ServerTime(184.0, 180.0, 2.0))
    verdict = evaluate_objective(Objective(p99_ms=100, min_requests_per_s=60), found, users=2, rate=60)
    assert (verdict.decision, len(verdict.undecided), verdict.limits) == ("undecided", 3, ())
    assert "the client computed for 10% of the time, and waited for a core for 25%" in verdict.undecided[0]
    assert decided(Objective(p99_ms=300), found) == "met"


def test_a_busy_machine_makes_the_servers_own_time_longer() -> None:
    slowed = ServerTime(270.0, 260.0, 124.0)  # 35 ms of computing, as the client waited for 2.5 times what it computed
    for rate in (None, 50.0):
        found = outcome(286.0, client=(0.2, 0.5), server=slowed)
        assert decided(Objective(p99_ms=100), found, rate=rate) == "undecided"
        assert decided(Objective(p99_ms=30), found, rate=rate) == "missed"
    a_bit = outcome(95.0, client=(0.5, 0.2), server=ServerTime(90.0, 90.0, 60.0))  # 43 ms of computing
    assert decided(Objective(p99_ms=50), a_bit, rate=50.0) == "undecided"
    assert decided(Objective(p99_ms=40), a_bit, rate=50.0) == "missed"


def test_a_slow_server_is_missed_on_a_busy_machine_too() -> None:
    slow = outcome(286.0, client=(0.2, 0.5))  # a server that does not report its time
    assert decided(Objective(p50_ms=80), slow) == "missed"
    assert decided(Objective(p50_ms=100), slow) == "undecided"
    assert decided(Objective(p50_ms=80), slow, rate=50.0) == "undecided"  # requests queue while the machine is slow
    assert decided(Objective(min_requests_per_s=200), slow) == "missed"
    assert decided(Objective(min_requests_per_s=170), slow) == "undecided"


def test_a_rate_above_that_of_an_empty_server_is_undecided() -> None:
    found = outcome(empty=(100.0, 1.0))
    assert decided(Objective(min_requests_per_s=90), found) == "missed"
    verdict = evaluate_objective(Objective(min_requests_per_s=120), found, users=2)
    assert verdict.undecided == (
        "50.0 requests/s, fewer than slo.min_requests_per_s=120, but a server that answers at once gave 100.0",
    )
    assert decided(Objective(min_requests_per_s=120), outcome(empty=None)) == "missed"


def test_what_is_met_in_spite_of_the_client_counts_where_more_load_would_meet_it() -> None:
    """In a closed loop, such a client never has the requests of all its users in the server."""
    found = outcome(client=BUSY, server=ServerTime(2.0, 1.0))
    assert decided(Objective(p99_ms=50), found, users=40) == "met"
    assert decided(Objective(p99_ms=50), found, users=60) == "undecided"
    assert decided(Objective(p99_ms=50), outcome(), users=60) == "met"
    assert decided(Objective(p99_ms=50), outcome(client=BUSY), users=4) == "met"
    assert decided(Objective(p99_ms=50), outcome(client=BUSY), users=60, rate=50.0) == "met"  # all of it was sent
    assert decided(Objective(min_requests_per_s=40), outcome(client=BUSY)) == "met"


def test_a_rate_that_is_not_reached() -> None:
    assert decided(Objective(), outcome(), rate=60.0) == "missed"
    assert decided(Objective(), outcome(client=BUSY), rate=60.0) == "undecided"
    verdict = evaluate_objective(Objective(), outcome(empty=(50.0, 1.0)), users=2, rate=60.0)
    assert verdict.decision == "undecided"
    assert verdict.limits == ("it sends 50 of rate=60 requests/s to a server that answers at once",)
    assert decided(Objective(), outcome(), rate=50.0) == "met"


def test_a_server_that_is_too_slow_for_a_rate_misses_it_on_a_busy_machine() -> None:
    slow = outcome(900.0, client=(0.3, 0.6), server=ServerTime(890.0, 885.0, 880.0))
    verdict = evaluate_objective(Objective(), slow, users=8, rate=60.0)
    (why,) = verdict.missed
    assert why.startswith(
        "50.0 of rate=60 requests/s were sent, as a batch takes 880 ms, and 8 users wait for it: more"
    )
    assert decided(Objective(), slow, users=800, rate=60.0) == "undecided"


@pytest.mark.parametrize(
    ("why", "decision"),
    [("status 503", "missed"), ("no answer: ReadTimeout", "undecided"), ("no answer within timeout_s=10", "undecided")],
)
def test_failures_are_the_servers_but_for_timeouts(why: str, decision: str) -> None:
    assert decided(Objective(), outcome(failures=(why,))) == "missed"
    assert decided(Objective(), outcome(client=BUSY, failures=(why,))) == decision
    assert decided(Objective(max_failures=1), outcome(client=BUSY, failures=(why,))) == "met"


def test_one_missed_term_misses_the_objective() -> None:
    verdict = evaluate_objective(Objective(p99_ms=5), outcome(client=BUSY, failures=("status 500",)), users=2)
    assert (verdict.decision, len(verdict.missed), len(verdict.undecided)) == ("missed", 1, 1)


def test_nothing_is_printed_of_a_client_that_was_not_measured() -> None:
    bare = outcome(empty=None)
    bare.client = ClientLoad()
    assert decided(Objective(p99_ms=5), bare) == "missed"
    assert decided(Objective(p99_ms=50), bare) == "met"


def test_usage_counts_what_this_process_does() -> None:
    before = read_usage()
    sum(range(300_000))
    after = read_usage()
    assert after[0] > before[0]
    assert after[1] >= before[1] >= 0
