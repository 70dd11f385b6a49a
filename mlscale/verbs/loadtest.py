"""Ask a server with Locust, and hold what comes back against an objective."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.export.needs import need
from mlscale.launch.drill import raised_on_terminate
from mlscale.launch.start import say
from mlscale.report import Bars, Result, Series, number
from mlscale.runs.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.loadtest.drive import Plan
    from mlscale.loadtest.outcome import Outcome

_REACHED = 0.95
"""The share of `rate` that must have been asked for: the latencies of a lower one are those of another test."""


def run(cfg: DictConfig) -> Result:
    """Look at the server, let Locust ask it, and compare with the objective.

    Raises:
        MLScaleError: nobody answers (exit code 5), samples that can't be sent, settings that can't be, Locust failed,
            or the extra 'loadtest' is not installed.
    """
    need("loadtest", "locust")
    from mlscale.loadtest.drive import Plan, drive
    from mlscale.loadtest.outcome import Objective
    from mlscale.loadtest.samples import random_of, read
    from mlscale.loadtest.server import Credentials, look

    start = time.perf_counter()
    objective = Objective(**cfg.slo)
    ca_file = str(Path(cfg.ca_file).expanduser().absolute()) if cfg.ca_file else None
    credentials = Credentials(cfg.api_key, ca_file)
    model = look(cfg.url, cfg.asked, credentials)
    path = Path(cfg.samples).expanduser().absolute() if cfg.samples else None
    samples = read(path, model) if path else random_of(model)
    keys = ("url", "users", "rate", "seconds", "warmup_s", "timeout_s", "protocol", "batch")
    plan = Plan(
        model=model, samples=str(path) if path else None, credentials=credentials, **{key: cfg[key] for key in keys}
    )
    say([f"loadtest  {cfg.url}: {model.name}, {samples.name}, {_load(plan)}"], Masker.of(cfg))
    with raised_on_terminate():
        outcome = drive(plan)
    missed = objective.missed(outcome)
    if plan.rate and outcome.requests < _REACHED * plan.rate * outcome.seconds:
        asked = outcome.requests / outcome.seconds if outcome.seconds else 0.0
        missed.append(f"{number(asked)} of rate={plan.rate:g} requests/s were sent: more users, or a lower rate")
    return _result(plan, outcome, missed, time.perf_counter() - start)


def _load(plan: Plan) -> str:
    users = f"{plan.users} user{'s' * (plan.users != 1)}"
    pace = f"{plan.rate:g} requests/s by {users}" if plan.rate else f"{users} without a pause"
    return f"{pace} for {plan.seconds:g} s after {plan.warmup_s:g} s"


def _result(plan: Plan, outcome: Outcome, missed: list[str], seconds: float) -> Result:
    latencies, failed = outcome.latencies, outcome.failed_requests
    p50, p95, p99 = (latencies.quantile(share) for share in (0.5, 0.95, 0.99))
    accuracy = outcome.correct / outcome.labelled if outcome.labelled else None
    parts = [
        f"{number(outcome.requests_per_s)} requests/s, p50 {p50:.3g} ms, p99 {p99:.3g} ms",
        f"{failed:,} of {outcome.requests:,} failed",
        *([f"accuracy {accuracy:.4f}"] if accuracy is not None else []),
    ]
    told = f"the objective is missed: {'; '.join(missed)}" if missed else "the objective is met"
    return Result(
        verb="loadtest",
        ok=not missed,
        sentence=f"{', '.join(parts)}: {told}",
        metrics={
            "requests": outcome.requests,
            "failures": failed,
            "requests_per_s": outcome.requests_per_s,
            "throughput_samples_per_s": outcome.samples / outcome.seconds if outcome.seconds else 0.0,
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "mean_ms": latencies.mean,
            "longest_ms": latencies.highest,
            **({"rate_requests_per_s": plan.rate} if plan.rate else {}),
            **({"accuracy": accuracy} if accuracy is not None else {}),
            "users": plan.users,
            "time_s": seconds,
        },
        artifacts={"server": plan.url, "versions": ", ".join(sorted(outcome.versions)) or "none"},
        figures=_figures(outcome),
    )


def _figures(outcome: Outcome) -> tuple[Bars, ...]:
    edges, counts = outcome.latencies.histogram()
    if not counts:
        return ()
    labels = [f"{edge:.3g}" for edge in edges[:-1]]
    return (Bars("Latency", labels, [Series("requests", counts)], "ms", "requests"),)
