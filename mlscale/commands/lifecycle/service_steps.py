"""The third quarter of a tour: a server under load, and production that changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from mlscale.commands.lifecycle.clients import ServerClient
from mlscale.commands.lifecycle.expected_answers import ExpectedAnswers
from mlscale.commands.lifecycle.metric_change import compare_sides, measure_samples
from mlscale.commands.lifecycle.production_samples import (
    LabelledSamples,
    load_lifecycle_samples,
    pack_request_samples,
    save_request_samples,
)
from mlscale.commands.lifecycle.shifts.fit_shift import fit_shift
from mlscale.commands.lifecycle.step_log import StepOutcome
from mlscale.commands.lifecycle.step_state import LifecycleState
from mlscale.loadtest.build_requests import LoadRequest, build_requests
from mlscale.loadtest.server_metadata import request_model_metadata

_READY_SECONDS = 60.0
_ID = "tour-{}"
_ALPHA = 0.05


def serve_champion(state: LifecycleState) -> StepOutcome:
    """Start the server as a process that follows the champion; check its answers against the servable's own."""
    ready_file = state.resolve_path("server.json")
    # Every sample is kept (sample_share=1.0), because the retraining learns from them.
    settings = (f"ref={state.champion}", "port=0", f"events={state.resolve_path('events')}", "sample_share=1.0")
    server = state.start_lifecycle_process("serve", *settings, f"ready_file={ready_file}")
    address = server.wait_until_ready(
        lambda: json.loads(ready_file.read_text()) if ready_file.is_file() else None, _READY_SECONDS, "starting"
    )
    state.url = str(address["url"])
    state.client = ServerClient(state.url)
    state.ends.callback(state.client.close)
    # The same model computed here, without HTTP and batching, as the expected answer.
    state.servable = state.load_servable(state.first.ref)
    state.samples = load_lifecycle_samples(state.cfg, state.servable, state.settings.traffic)
    held_out = state.samples.held_out
    state.metric, value = measure_samples(state.servable, held_out)
    expected, problems, largest = ExpectedAnswers(state.servable, held_out.raw), [], 0.0
    # One by one, as a client sends them: a request has one image file.
    for row, request in enumerate(build_sample_requests(state, held_out)):
        version, answer = state.client.request_prediction(request)
        if problem := expected.find_problem(answer, row) or ("" if version == state.first.ref else f"of {version}"):
            problems.append(problem)
        largest = max(largest, expected.measure_difference(answer, row))
    same = f"no number off by more than {largest:.0e}" if largest else "every number bitwise identical"
    return StepOutcome(
        f"{state.first.ref}, {state.metric.describe_value(value)}",
        f"over HTTP, of {len(held_out):,} validation samples; "
        + (f"{len(problems):,} answers differ from the servable's: {problems[0]}" if problems else same),
        not problems,
        {f"served_{state.metric.name}": value, "served_max_abs_error": largest, "served_wrong": len(problems)},
    )


def build_sample_requests(state: LifecycleState, samples: LabelledSamples) -> list[LoadRequest]:
    """Return a request for each sample, as the load test sends it."""
    packed = pack_request_samples(samples.raw, state.servable)
    protocol = "bytes" if packed.tensors else "raw"
    return build_requests(protocol, packed, request_model_metadata(state.url), 1)


def run_load_test(state: LifecycleState) -> StepOutcome:
    """Run Locust, closed loop, and compare with the objective."""
    packed = pack_request_samples(state.samples.held_out.raw, state.servable)
    samples = save_request_samples(packed, state.resolve_path("samples"))
    terms = [f"slo.{name}={'null' if value is None else value}" for name, value in state.settings.slo.items()]
    load = (f"users={state.settings.users}", f"seconds={state.settings.load_seconds}", "warmup_s=1")
    result = state.run_service_command("loadtest", f"ref={state.url}", f"samples={samples}", *load, *terms)
    metrics = result.metrics
    return StepOutcome(
        f"p99 {metrics['p99_ms']:.3g} ms, {metrics['requests_per_s']:,.0f} requests/s",
        result.sentence.partition(": ")[2] + f"; {int(metrics['failures'])} of {int(metrics['requests']):,} failed",
        result.ok,
        {name: metrics[name] for name in ("p50_ms", "p99_ms", "requests_per_s", "requests", "failures")},
        next(iter(result.figures), None),
        "loadtest.html",
    )


def send_shifted_samples(state: LifecycleState) -> StepOutcome:
    """Send samples as production has them after the change, one request each: the model gets worse without an error of
    the server.
    """
    traffic, metric = state.samples.traffic, state.metric
    state.shift = fit_shift(str(state.settings.shift), state.servable, traffic)
    state.shifted = state.shift.apply_to(traffic)
    # Monitoring must not see the requests before this time.
    state.sent_since = datetime.now(UTC).isoformat()
    state.ids = [_ID.format(number) for number in range(len(traffic))]
    for request, id in zip(build_sample_requests(state, state.shifted), state.ids, strict=True):
        state.client.request_prediction(request, id)
    # Answers equal the servable's, as step 7 has shown: both metrics are computed from its outputs.
    change = compare_sides((state.servable, traffic), (state.servable, state.shifted), alpha=_ALPHA)
    what = "labels after" if state.shift.is_concept else "samples after"
    return StepOutcome(
        metric.describe_value(change.second),
        f"of {len(traffic):,} {what} '{state.shift.name}' ({state.shift.description}), "
        f"{metric.format_value(change.first)} before; every request was answered",
        change.p_worse < _ALPHA,
        {f"shifted_traffic_{metric.name}": change.second, "shifted_requests": len(traffic)},
        metric.plot_values("of what production sends", [("before", change.first), ("after", change.second)]),
    )
