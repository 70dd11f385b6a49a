"""The third quarter of a tour: a server under load, production that changes, and an alert."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import numpy as np

from mlscale.commands.lifecycle.clients import Client
from mlscale.commands.lifecycle.production_samples import samples_of
from mlscale.commands.lifecycle.step_log import Told
from mlscale.commands.lifecycle.step_state import Walk
from mlscale.report import Rows

_READY_SECONDS, _FLUSH_SECONDS = 60.0, 20.0
_ID = "tour-{}"


def serve(walk: Walk) -> Told:
    """Start the server as a process that follows the champion; check its answers against the servable's own."""
    ready = walk.place("server.json")
    # Every sample is kept (sample_share=1.0), because the retraining learns from them.
    settings = (f"ref={walk.champion}", "port=0", f"events={walk.place('events')}", "sample_share=1.0")
    server = walk.background("serve", *settings, f"ready_file={ready}")
    told = server.until(lambda: json.loads(ready.read_text()) if ready.is_file() else None, _READY_SECONDS, "starting")
    walk.url = str(told["url"])
    walk.client = Client(walk.url)
    walk.ends.callback(walk.client.close)
    # The same model computed here, without HTTP and batching, as the expected answer.
    servable = walk.servable(walk.first.ref)
    walk.samples = samples_of(walk.cfg, servable.labels, walk.settings.traffic)
    held_out = walk.samples.held_out
    answer = walk.client.predict(held_out.raw)
    off = float(np.abs(answer.probabilities - servable.predict(held_out.raw).probabilities).max())
    same, accuracy = off < 1e-3, held_out.accuracy(answer.labels)
    return Told(
        f"{answer.version}, accuracy {accuracy:.2%}",
        f"over HTTP, of {len(held_out.raw):,} validation images; "
        + (
            (f"no probability off by more than {off:.0e}" if off else "every probability right to the bit")
            if same
            else f"a probability is off by {off:.2g}"
        ),
        same and answer.version == walk.first.ref,
        {"served_accuracy": accuracy, "served_max_abs_error": off},
    )


def loadtest(walk: Walk) -> Told:
    """Run Locust, closed loop, and compare with the objective."""
    walk.samples.held_out.save(walk.place("samples.npz"))
    terms = [f"slo.{name}={'null' if value is None else value}" for name, value in walk.settings.slo.items()]
    load = (f"users={walk.settings.users}", f"seconds={walk.settings.load_seconds}", "warmup_s=1")
    result = walk.call_service("loadtest", f"ref={walk.url}", f"samples={walk.place('samples.npz')}", *load, *terms)
    metrics = result.metrics
    return Told(
        f"p99 {metrics['p99_ms']:.3g} ms, {metrics['requests_per_s']:,.0f} requests/s",
        result.sentence.partition(": ")[2] + f"; {int(metrics['failures'])} of {int(metrics['requests']):,} failed",
        result.ok,
        {name: metrics[name] for name in ("p50_ms", "p99_ms", "requests_per_s", "requests", "failures")},
        next(iter(result.figures), None),
        "loadtest.html",
    )


def shift(walk: Walk) -> Told:
    """Send shifted images, one request each, as if production had changed: accuracy falls without an error of the
    server.
    """
    shifted = walk.samples.traffic.shifted(walk.settings.shift)
    before = shifted.accuracy(walk.client.predict(walk.samples.traffic.raw).labels)
    # Monitoring must not see the unshifted requests before this time.
    walk.sent_since = datetime.now(UTC).isoformat()
    walk.ids = [_ID.format(number) for number in range(len(shifted.raw))]
    said = [walk.client.predict(sample[None], id).labels[0] for sample, id in zip(shifted.raw, walk.ids, strict=True)]
    after = shifted.accuracy(said)
    return Told(
        f"accuracy {after:.2%}",
        f"of {len(said):,} images after '{walk.settings.shift}', {before:.2%} before; every request was answered",
        after < before,
        {"shifted_traffic_accuracy": after, "shifted_requests": len(said)},
        Rows("Accuracy of what production sends", [("before", 100 * before), ("after", 100 * after)], "%", 100.0),
    )


def alert(walk: Walk) -> Told:
    """Check that drift is seen at once, and that degradation is reported once to a receiver when labels come in."""
    from mlscale.commands.lifecycle.alert_receiver import receiving

    receiver = walk.ends.enter_context(receiving())
    look = (
        f"ref={walk.first.ref}",
        f"events={walk.place('events')}",
        f"window.since={walk.sent_since}",
        "alert.rules=[damage]",
        f"alert.webhook={receiver.url}",
    )
    # The server writes events with a delay (flush_s): monitoring reads files, not the server.
    _written(walk)
    # Three checks in this order: without labels only drift can be seen, with them degradation, and the third must not
    # alert again.
    drift = walk.call_service("monitor", *look, name="monitor-unlabelled")
    walk.client.label(walk.ids, walk.samples.traffic.labels.tolist())
    damage = walk.call_service("monitor", *look)
    walk.call_service("monitor", *look, name="monitor-again")  # the same incident: no second alert
    drifted, alerts = drift.metrics["drift"] == 1, list(receiver.alerts)
    # Exactly one after three checks: an incident is reported once.
    once = len(alerts) == 1 and alerts[0].get("status") == "firing"
    accuracy, reference = damage.metrics["accuracy"], damage.metrics["reference_accuracy"]
    return Told(
        f"{len(alerts)} alert{'s' * (len(alerts) != 1)} received",
        f"{'drift was seen' if drifted else 'no drift was seen'} before any label; with "
        f"{int(damage.metrics['labelled_events']):,} labels, accuracy {accuracy:.2%}, reference {reference:.2%}",
        drift.ok and drifted and not damage.ok and once,
        {"alerts": len(alerts), "drifted_columns": drift.metrics["drifted_columns"], "monitored_accuracy": accuracy},
        next(iter(damage.figures), None),
        "monitor.html",
    )


def _written(walk: Walk) -> None:
    """Wait until the server has written the events of all that was sent."""
    from mlscale.events.store import EventStore

    store, end = EventStore(walk.place("events")), time.monotonic() + _FLUSH_SECONDS
    since = datetime.fromisoformat(walk.sent_since)
    while len(store.read(walk.first.name, since=since)) < len(walk.ids) and time.monotonic() < end:
        time.sleep(0.1)
