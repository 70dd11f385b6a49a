"""The third quarter of a tour: a server under load, production that changes, and an alert."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import numpy as np

from mlscale.commands.lifecycle.clients import ServerClient
from mlscale.commands.lifecycle.production_samples import load_lifecycle_samples
from mlscale.commands.lifecycle.step_log import StepOutcome
from mlscale.commands.lifecycle.step_state import LifecycleState
from mlscale.report import HorizontalBarPlot

_READY_SECONDS, _FLUSH_SECONDS = 60.0, 20.0
_ID = "tour-{}"


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
    servable = state.load_servable(state.first.ref)
    state.samples = load_lifecycle_samples(state.cfg, servable.labels, state.settings.traffic)
    held_out = state.samples.held_out
    answer = state.client.request_predictions(held_out.raw)
    off = float(np.abs(answer.probabilities - servable.predict(held_out.raw).probabilities).max())
    same, accuracy = off < 1e-3, held_out.compute_accuracy(answer.labels)
    return StepOutcome(
        f"{answer.version}, accuracy {accuracy:.2%}",
        f"over HTTP, of {len(held_out.raw):,} validation images; "
        + (
            (f"no probability off by more than {off:.0e}" if off else "every probability bitwise identical")
            if same
            else f"a probability is off by {off:.2g}"
        ),
        same and answer.version == state.first.ref,
        {"served_accuracy": accuracy, "served_max_abs_error": off},
    )


def run_load_test(state: LifecycleState) -> StepOutcome:
    """Run Locust, closed loop, and compare with the objective."""
    state.samples.held_out.save_samples(state.resolve_path("samples.npz"))
    terms = [f"slo.{name}={'null' if value is None else value}" for name, value in state.settings.slo.items()]
    load = (f"users={state.settings.users}", f"seconds={state.settings.load_seconds}", "warmup_s=1")
    result = state.run_service_command(
        "loadtest", f"ref={state.url}", f"samples={state.resolve_path('samples.npz')}", *load, *terms
    )
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
    """Send shifted images, one request each, as if production had changed: accuracy falls without an error of the
    server.
    """
    shifted = state.samples.traffic.apply_shift(state.settings.shift)
    before = shifted.compute_accuracy(state.client.request_predictions(state.samples.traffic.raw).labels)
    # Monitoring must not see the unshifted requests before this time.
    state.sent_since = datetime.now(UTC).isoformat()
    state.ids = [_ID.format(number) for number in range(len(shifted.raw))]
    predicted = [
        state.client.request_predictions(sample[None], id).labels[0]
        for sample, id in zip(shifted.raw, state.ids, strict=True)
    ]
    after = shifted.compute_accuracy(predicted)
    return StepOutcome(
        f"accuracy {after:.2%}",
        f"of {len(predicted):,} images after '{state.settings.shift}', {before:.2%} before; every request was answered",
        after < before,
        {"shifted_traffic_accuracy": after, "shifted_requests": len(predicted)},
        HorizontalBarPlot(
            "Accuracy of what production sends", [("before", 100 * before), ("after", 100 * after)], "%", 100.0
        ),
    )


def check_alert(state: LifecycleState) -> StepOutcome:
    """Check that drift is seen at once, and that degradation is reported once to a receiver when labels come in."""
    from mlscale.commands.lifecycle.alert_receiver import receive_alerts

    receiver = state.ends.enter_context(receive_alerts())
    overrides = (
        f"ref={state.first.ref}",
        f"events={state.resolve_path('events')}",
        f"window.since={state.sent_since}",
        "alert.rules=[degradation]",
        f"alert.webhook={receiver.url}",
    )
    # The server writes events with a delay (flush_s): monitoring reads files, not the server.
    _wait_for_events(state)
    # Three checks in this order: without labels only drift can be seen, with them degradation, and the third must not
    # alert again.
    drift = state.run_service_command("monitor", *overrides, name="monitor-unlabelled")
    state.client.send_labels(state.ids, state.samples.traffic.labels.tolist())
    degraded = state.run_service_command("monitor", *overrides)
    state.run_service_command("monitor", *overrides, name="monitor-again")  # the same incident: no second alert
    drifted, alerts = drift.metrics["drift"] == 1, list(receiver.alerts)
    # Exactly one after three checks: an incident is reported once.
    once = len(alerts) == 1 and alerts[0].get("status") == "firing"
    accuracy, reference = degraded.metrics["accuracy"], degraded.metrics["reference_accuracy"]
    return StepOutcome(
        f"{len(alerts)} alert{'s' * (len(alerts) != 1)} received",
        f"{'drift was seen' if drifted else 'no drift was seen'} before any label; with "
        f"{int(degraded.metrics['labelled_events']):,} labels, accuracy {accuracy:.2%}, reference {reference:.2%}",
        drift.ok and drifted and not degraded.ok and once,
        {"alerts": len(alerts), "drifted_columns": drift.metrics["drifted_columns"], "monitored_accuracy": accuracy},
        next(iter(degraded.figures), None),
        "monitor.html",
    )


def _wait_for_events(state: LifecycleState) -> None:
    """Wait until the server has written the events of all that was sent."""
    from mlscale.events.store import EventStore

    store, end = EventStore(state.resolve_path("events")), time.monotonic() + _FLUSH_SECONDS
    since = datetime.fromisoformat(state.sent_since)
    while len(store.read(state.first.name, since=since)) < len(state.ids) and time.monotonic() < end:
        time.sleep(0.1)
