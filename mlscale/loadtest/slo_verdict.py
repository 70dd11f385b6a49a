"""Decides if an objective is met, missed, or undecided, because the client was the limit and not the server.

A client at its limit makes latencies longer and rates lower than the server's own, and it sends in bursts, which wait
in the server. So a term that is missed is undecided, unless the compute time of half of the answers exceeds it; so is
one that the server's own time meets, and, on a machine with too many processes, one that would be met if all were as
much faster as the client is without its waits for a core. A term that is met holds for the load that was sent. In a
closed loop that is less than `users` clients without a pause would send, so it only counts if it would hold with all
their requests in the server, computed one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mlscale.loadtest.load_outcome import LoadOutcome, Objective

_BUSY = 0.9
"""The share of the time in which a client computes or waits for a core, from which it is at its limit."""
_NEAR = 0.8
"""The share of the client's rate with an empty server, from which the client is the limit."""
_REACHED = 0.95
"""The share of `rate` that must have been sent: the latencies of a lower one are those of another test."""
_FAR = 10.0
"""The factor over the client's own latency from which a latency is the server's."""
# With fewer requests the calibration is noise.
_MIN_CALIBRATED = 20
_QUANTILES = ((0.5, "p50_ms"), (0.95, "p95_ms"), (0.99, "p99_ms"))

Decision = Literal["met", "missed", "undecided"]


@dataclass(frozen=True)
class SloVerdict:
    """The result for an objective.

    Attributes:
        missed: a phrase for each term that is missed, with its value.
        undecided: a phrase for each term that can't be decided.
        limits: the reasons why the client was the limit; empty where it was not.
    """

    missed: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def decision(self) -> Decision:
        """The decision for the whole objective: missed if any term is missed."""
        return "missed" if self.missed else "undecided" if self.undecided else "met"


def evaluate_objective(
    objective: Objective, outcome: LoadOutcome, *, users: int, rate: float | None = None
) -> SloVerdict:
    """Compare an outcome with an objective.

    Args:
        users: the number of concurrent clients.
        rate: the planned requests/s (open loop); None for a closed loop.
    """
    # Where no answer was valid there is no time to explain by the client: the reason is the server's, or the samples'.
    limits = tuple(_find_client_limits(outcome, rate)) if outcome.latencies.count else ()
    # In an open loop all requests were sent at their rate, so a met latency needs no extrapolation: no users.
    terms = [*_check_latencies(objective, outcome, users if rate is None else 0, bool(limits))]
    terms += _check_failures(objective, outcome, bool(limits))
    terms += _check_rate(objective, outcome, users, rate, bool(limits))
    # Every quantile is NaN then, and a comparison with NaN decides nothing.
    if not outcome.requests:
        terms = [("missed", "no request came to an end")]
    elif not outcome.latencies.count:
        terms = [("missed", f"no request had a valid answer: {_format_failures(outcome)}")]
    missed = tuple(phrase for decision, phrase in terms if decision == "missed")
    return SloVerdict(missed, tuple(phrase for decision, phrase in terms if decision == "undecided"), limits)


def _find_client_limits(outcome: LoadOutcome, rate: float | None) -> Iterator[str]:
    client, seconds = outcome.client, outcome.seconds
    if seconds and client.cpu_s + client.wait_s >= _BUSY * seconds:
        yield (
            f"it was busy for {min(1.0, (client.cpu_s + client.wait_s) / seconds):.0%} of the time "
            f"({client.cpu_s / seconds:.0%} computing, {client.wait_s / seconds:.0%} waiting for a core)"
        )
    most = _read_calibrated_rate(outcome)
    # Only a closed loop shows the client's limit so: an open one sends at `rate`, however fast the client is.
    if rate is None and most and outcome.requests_per_s >= _NEAR * most:
        yield f"it gets {most:,.0f} requests/s from a server that answers at once, {outcome.requests_per_s:,.0f} here"
    if rate is not None and most and most < _REACHED * rate:
        yield f"it sends {most:,.0f} of rate={rate:g} requests/s to a server that answers at once"


def _read_calibrated_rate(outcome: LoadOutcome) -> float:
    """Return the requests/s that the empty server gave; 0 where that is not known."""
    return outcome.client.empty_requests_per_s if outcome.client.empty.count >= _MIN_CALIBRATED else 0.0


Term = tuple[Decision, str]


def _check_latencies(objective: Objective, outcome: LoadOutcome, users: int, limited: bool) -> Iterator[Term]:
    # Without the queue where that is known: the estimate below adds up the requests of all users itself.
    times, slowdown = outcome.service if outcome.service.count else outcome.latencies, _estimate_slowdown(outcome)
    for share, name in _QUANTILES:
        bound, value = getattr(objective, name), outcome.latencies.compute_quantile(share)
        if bound is None:
            continue
        measured = f"p{share * 100:g} is {value:.3g} ms"
        if value <= bound:
            if limited and users * times.mean > bound:
                yield "undecided", f"{measured}, but {users} requests were never in the server at once"
            continue
        # The time in the model, which a slow client can't make longer, but a busy machine can.
        own, alone = outcome.compute.compute_quantile(0.5), _estimate_client_latency(outcome, share)
        half, more = outcome.latencies.compute_quantile(0.5), f"{measured}, more than slo.{name}={bound:g}"
        if own > bound * slowdown:
            yield "missed", f"{more}: half of the batches take {own:.3g} ms to compute"
        elif limited:
            yield "undecided", more
        elif alone > bound and value < _FAR * alone:
            yield "undecided", f"{more}, but the client alone takes {alone:.3g} ms"
        elif outcome.server.compute_quantile(share) <= bound:
            yield "undecided", f"{more}, but only {outcome.server.compute_quantile(share):.3g} ms in the server"
        elif users and half > bound * slowdown:  # an open loop waits the longer, the fewer answers come
            yield "missed", more
        elif starved := _describe_starvation(outcome, least=0 if own > bound else 1):
            yield "undecided", f"{more}, but {starved}"
        else:
            yield "missed", more


def _estimate_slowdown(outcome: LoadOutcome) -> float:
    """Return how many times as long the client took for its computing as on a machine that is not busy."""
    return 1 + outcome.client.wait_s / (outcome.client.cpu_s or 1)


def _describe_starvation(outcome: LoadOutcome, least: float = 1) -> str:
    """Return why latencies are those of a machine with too many processes; empty where they are not, as the client
    waited for a core for no more than `least` of the time that it computed."""
    wait, cpu = (part / (outcome.seconds or 1) for part in (outcome.client.wait_s, outcome.client.cpu_s))
    times = f"the client computed for {cpu:.0%} of the time, and waited for a core for {wait:.0%}"
    return f"this machine is too busy: {times}" if wait > least * cpu else ""


def _estimate_client_latency(outcome: LoadOutcome, share: float) -> float:
    """Return the latency that the client causes by itself, in ms; NaN where it is not known."""
    known = [item for item in (outcome.client.empty, outcome.client.lag) if item.count >= _MIN_CALIBRATED]
    return max((latencies.compute_quantile(share) for latencies in known), default=math.nan)


def _check_failures(objective: Objective, outcome: LoadOutcome, limited: bool) -> Iterator[Term]:
    failed, most = outcome.failed_requests, objective.max_failures
    if most is None or failed <= most:
        return
    # A client at its limit causes timeouts, but no other failures.
    late = sum(count for why, count in outcome.failures.items() if "timeout" in why.lower())
    decision: Decision = "undecided" if limited and failed - late <= most else "missed"
    yield decision, f"{failed:,} of {outcome.requests:,} requests failed ({_format_failures(outcome)})"


def _format_failures(outcome: LoadOutcome) -> str:
    return ", ".join(f"{count:,} × {why}" for why, count in outcome.failures.most_common(3))


def _check_rate(
    objective: Objective, outcome: LoadOutcome, users: int, rate: float | None, limited: bool
) -> Iterator[Term]:
    least, reached, most = objective.min_requests_per_s, outcome.requests_per_s, _read_calibrated_rate(outcome)
    is_beyond = 0 < most < (least or 0)
    is_far = (least or 0) > reached * _estimate_slowdown(outcome)  # too few on any machine
    starved = not is_far and _describe_starvation(outcome)
    cause = f"a server that answers at once gave {most:,.1f}" if is_beyond else starved
    decision: Decision = "undecided" if limited or cause else "missed"
    but = f", but {cause}" if cause else ""
    # `not >=`: NaN is not reached either.
    if least is not None and not reached >= least:
        yield decision, f"{reached:,.1f} requests/s, fewer than slo.min_requests_per_s={least:g}{but}"
    sent = outcome.requests / outcome.seconds if outcome.seconds else 0.0
    if rate is not None and outcome.requests < _REACHED * rate * outcome.seconds:
        # Each user waits for its batch: so many requests are the most that the model allows, on any machine.
        ms = outcome.compute.mean
        if ms * rate * _REACHED > 1000 * users * _estimate_slowdown(outcome):
            decision, but = "missed", f", as a batch takes {ms:,.0f} ms, and {users} users wait for it"
        yield decision, f"{sent:,.1f} of rate={rate:g} requests/s were sent{but}: more users, or a lower rate"
