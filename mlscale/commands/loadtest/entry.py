"""Send load to a server with Locust, and compare the results with an objective."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.errors import MLScaleError
from mlscale.export.required_extras import require_extra
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import BarPlot, Figure, Result, Series, format_number
from mlscale.runs.host.processes import raise_on_terminate
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.loadtest.load_outcome import LoadOutcome
    from mlscale.loadtest.locust_process import LoadPlan
    from mlscale.loadtest.slo_verdict import SloVerdict


def run(cfg: DictConfig) -> Result:
    """Read the server's metadata, let Locust send load, and compare with the objective.

    Raises:
        MLScaleError: no server answers (exit code 5), unsuitable samples, invalid settings, Locust failed,
            or the extra 'loadtest' is not installed.
    """
    require_extra("loadtest", "locust")
    from mlscale.loadtest.build_requests import choose_protocol
    from mlscale.loadtest.load_outcome import Objective
    from mlscale.loadtest.load_samples import read_request_samples
    from mlscale.loadtest.locust_process import LoadPlan, run_locust
    from mlscale.loadtest.random_samples import generate_samples
    from mlscale.loadtest.server_metadata import Credentials, request_model_metadata
    from mlscale.loadtest.slo_verdict import evaluate_objective

    start = time.perf_counter()
    objective = Objective(**cfg.slo)
    least = objective.min_requests_per_s or 0
    if cfg.rate and cfg.rate < least:
        raise MLScaleError(
            f"{cfg.rate:g} requests/s never reach slo.min_requests_per_s={least:g}", where="rate", fix="leave rate out"
        )
    # Absolute: Locust runs in another process, which may have another working folder.
    ca_file = str(Path(cfg.ca_file).expanduser().absolute()) if cfg.ca_file else None
    credentials = Credentials(cfg.api_key, ca_file)
    # The server describes its input, so samples are checked against it before Locust starts.
    model = request_model_metadata(cfg.ref, cfg.model_name, credentials)
    path = Path(cfg.samples).expanduser().absolute() if cfg.samples else None
    # Latency can be measured with random samples; accuracy needs real ones.
    samples = read_request_samples(path, model, cfg.member) if path else generate_samples(model, cfg.protocol)
    settings = {key: cfg[key] for key in ("users", "rate", "seconds", "warmup_s", "timeout_s", "batch")}
    protocol = choose_protocol(cfg.protocol, samples, model, cfg.batch)
    plan = LoadPlan(
        url=cfg.ref,
        model=model,
        samples=str(path) if path else None,
        member=cfg.member,
        credentials=credentials,
        protocol=protocol,
        ready_file=str(Path(cfg.ready_file).expanduser().absolute()) if cfg.ready_file else None,
        **settings,
    )
    print_masked_lines(
        [f"loadtest  {cfg.ref}: {model.name}, {samples.name} by {protocol}, {_format_load(plan)}"],
        Masker.create_for_run(cfg),
    )
    # SIGTERM raises, so that Locust's process does not outlive this one.
    with raise_on_terminate():
        outcome = run_locust(plan)
    verdict = evaluate_objective(objective, outcome, users=plan.users, rate=plan.rate)
    return _build_loadtest_result(plan, outcome, verdict, least, time.perf_counter() - start)


def _format_load(plan: LoadPlan) -> str:
    users = f"{plan.users} user{'s' * (plan.users != 1)}"
    pace = f"{plan.rate:g} requests/s by {users}" if plan.rate else f"{users} without a pause"
    return f"{pace} for {plan.seconds:g} s after {plan.warmup_s:g} s"


def _build_loadtest_result(
    plan: LoadPlan, outcome: LoadOutcome, verdict: SloVerdict, least: float, seconds: float
) -> Result:
    latencies, failed = outcome.latencies, outcome.failed_requests
    quantiles = {f"p{100 * share:g}_ms": latencies.compute_quantile(share) for share in (0.5, 0.95, 0.99)}
    accuracy = outcome.correct / outcome.labelled if outcome.labelled else None
    times = f", p50 {quantiles['p50_ms']:.3g} ms, p99 {quantiles['p99_ms']:.3g} ms" if latencies.count else ""
    parts = [
        f"{format_number(outcome.requests_per_s)} requests/s{times}",
        f"{failed:,} of {outcome.requests:,} failed",
        *([f"accuracy {accuracy:.4f}"] if accuracy is not None else []),
    ]
    return Result(
        command="loadtest",
        # Undecided is not met: a gate must not pass on missing evidence.
        ok=verdict.decision == "met",
        sentence=f"{', '.join(parts)}: {_format_conclusion(plan, outcome, verdict, least)}",
        metrics={
            "requests": outcome.requests,
            "failures": failed,
            "requests_per_s": outcome.requests_per_s,
            "throughput_samples_per_s": outcome.samples / outcome.seconds if outcome.seconds else 0.0,
            # Without a valid answer there is no latency.
            **({**quantiles, "mean_ms": latencies.mean, "longest_ms": latencies.highest} if latencies.count else {}),
            **({"rate_requests_per_s": plan.rate} if plan.rate else {}),
            **({"accuracy": accuracy} if accuracy is not None else {}),
            **_collect_known_metrics(outcome),
            "users": plan.users,
            "time_s": seconds,
        },
        figures=_plot_latencies(outcome),
        details={
            "server": plan.url,
            "versions": ", ".join(sorted(outcome.versions)) or "none",
            # The same model on another execution provider has other times.
            **({"runtime": plan.model.runtime} if plan.model.runtime else {}),
            "objective": {
                "verdict": verdict.decision,
                "missed": list(verdict.missed),
                "undecided": list(verdict.undecided),
                "client_limits": list(verdict.limits),
            },
        },
    )


def _format_conclusion(plan: LoadPlan, outcome: LoadOutcome, verdict: SloVerdict, least: float) -> str:
    """Return the verdict on the objective, which wants `least` requests/s, and what to type if it is undecided."""
    limited = f"the client was the limit: {'; '.join(verdict.limits)}" if verdict.limits else ""
    match verdict.decision:
        case "met":
            return f"the objective is met{f', although {limited}' if limited else ''}"
        case "missed":
            phrases = [*verdict.missed, *([limited] if limited else [])]
            return f"the objective is missed: {'; '.join(phrases)}"
    rate = _suggest_rate(plan, outcome)
    fixes = [f"rate={rate:g}"] if rate and rate >= least else []
    fixes += [f"users={plan.users // 2}"] if plan.users > 1 and not plan.rate and not least else []
    return (
        f"the objective is undecided: {'; '.join([*([limited] if limited else []), *verdict.undecided])}; try "
        f"{', or '.join([*fixes, 'the same on a quiet machine or from several, or wrk'])}"
    )


def _suggest_rate(plan: LoadPlan, outcome: LoadOutcome) -> float:
    """Return half of the rate that the client has sent, in two digits; 0 if it sent nothing."""
    # Half of it: at its limit the client adds its own delay to the latencies.
    rate = outcome.requests_per_s / 2
    return float(f"{min(rate, plan.rate or rate):.2g}")


def _collect_known_metrics(outcome: LoadOutcome) -> dict[str, float]:
    """Return the parts of the answer time, and the load of the client; only those that are known."""
    client = outcome.client
    known: dict[str, float] = {}
    for name, latencies in (("server", outcome.server), ("network_and_client", outcome.network)):
        if latencies.count:
            known |= {f"{name}_p{100 * share:g}_ms": latencies.compute_quantile(share) for share in (0.5, 0.95, 0.99)}
    if outcome.seconds:
        known["client_busy_percent"] = 100 * (client.cpu_s + client.wait_s) / outcome.seconds
        known["client_cpu_percent"] = 100 * client.cpu_s / outcome.seconds
    # Lag and the empty server show whether the client itself was the bottleneck.
    if client.lag.count:
        known["client_lag_p99_ms"] = client.lag.compute_quantile(0.99)
    if client.empty.count:
        known["empty_server_requests_per_s"] = client.empty_requests_per_s
        known["empty_server_p99_ms"] = client.empty.compute_quantile(0.99)
    return known


def _plot_latencies(outcome: LoadOutcome) -> tuple[Figure, ...]:
    # There is one edge more than counts: each bar is labelled by its lower edge.
    edges, counts = outcome.latencies.compute_histogram()
    if not counts:
        return ()
    labels = [f"{edge:.3g}" for edge in edges[:-1]]
    latency = BarPlot("Latency", labels, [Series("requests", counts)], "ms", "requests")
    if not outcome.server.count:
        return (latency,)
    parts = [
        Series(name, [latencies.compute_quantile(share) for share in (0.5, 0.95, 0.99)])
        for name, latencies in (("server", outcome.server), ("network and client", outcome.network))
    ]
    return latency, BarPlot("Where the time goes", ["p50", "p95", "p99"], parts, "share of the requests", "ms")
