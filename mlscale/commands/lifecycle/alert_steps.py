"""The alert of a tour: what monitoring finds before any label, and how many labels it needs for the rest."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mlscale.commands.lifecycle.key_metric import describe_metric
from mlscale.commands.lifecycle.step_log import StepOutcome
from mlscale.commands.lifecycle.step_state import LifecycleState

if TYPE_CHECKING:
    from mlscale.report import Figure, Result

_FLUSH_SECONDS = 20.0
_LABELS, _MOST_LABELS = 100, 300
"""Labels that are sent at once, and by which monitoring must have found the degradation."""


def check_alert(state: LifecycleState) -> StepOutcome:
    """Check that drift is seen at once, unless inputs stay, and that degradation is reported once to a receiver when
    labels come in.
    """
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
    # In this order: without labels only drift can be seen, with them degradation, and the last must not alert again.
    first = state.run_service_command("monitor", *overrides, name="monitor-unlabelled")
    result, sent = _find_degradation(state, overrides, first)
    last = state.run_service_command("monitor", *overrides, name="monitor-again")
    alerts = list(receiver.alerts)
    # Exactly one after all checks: an incident is reported once.
    once = len(alerts) == 1 and alerts[0].get("status") == "firing"
    drifted = first.metrics["drift"] == 1
    inputs = _list_drifted_inputs(state, first)
    seen_as_expected = not inputs if state.shift.is_concept else drifted
    score = state.servable.task_type.score.name
    return StepOutcome(
        f"{len(alerts)} alert{'s' * (len(alerts) != 1)} received",
        f"{_describe_drift(state, drifted, inputs)}; {_describe_degradation(state, result, sent)}",
        seen_as_expected and not result.ok and once,
        {
            "alerts": len(alerts),
            "drifted_columns": first.metrics["drifted_columns"],
            "drifted_inputs": len(inputs),
            "labels_to_alert": sent,
            f"monitored_{score}": last.metrics[score],
        },
        # Of the check that the sentence is about: the last one has more labels.
        _plot_alert(state, result),
        "monitor.html",
    )


def _find_degradation(state: LifecycleState, overrides: Sequence[str], first: Result) -> tuple[Result, int]:
    """Send labels until monitoring finds the degradation, at most 300, and then the others; return that check, and the
    labels that it had."""
    if not state.servable.task_type.needs_label:
        # Texts show by themselves how well they were predicted: the first check has found it.
        state.tour.write_step_result(first, "monitor")
        return first, 0
    labels: list[Any] = state.servable.task_type.format_labels(state.shifted.truth, state.servable.names)
    result, sent = first, 0
    # In lots: the fewer labels are needed, the earlier an alert comes.
    while sent < min(_MOST_LABELS, len(labels)) and (result is first or result.ok):
        part = slice(sent, sent + _LABELS)
        state.client.send_labels(state.ids[part], labels[part])
        sent += len(labels[part])
        result = state.run_service_command("monitor", *overrides)
    # The retraining learns from all of them.
    state.client.send_labels(state.ids[sent:], labels[sent:])
    return result, sent


def _list_drifted_inputs(state: LifecycleState, check: Result) -> list[str]:
    """Return the columns of inputs for which a check alerts."""
    return list(check.details.get("drifted_inputs", ()))


def _describe_drift(state: LifecycleState, drifted: bool, inputs: Sequence[str]) -> str:
    if state.shift.is_concept:
        return f"inputs drifted: {', '.join(inputs)}" if inputs else "no drift of the inputs, which have not changed"
    when = " before any label" if state.servable.task_type.needs_label else ""
    return f"{'drift was' if drifted else 'no drift was'} seen{when}"


def _describe_degradation(state: LifecycleState, result: Result, sent: int) -> str:
    task_type = state.servable.task_type
    metric = describe_metric(task_type.score.name, task_type, state.servable.names.targets)
    now, before = (result.metrics.get(f"{part}{metric.name}", math.nan) for part in ("", "reference_"))
    labels = f"with {sent:,} labels" if sent else "without labels"
    what = "degradation was not found" if result.ok else "degradation was found"
    return f"{what} {labels}: {metric.describe_value(now)}, reference {metric.format_value(before)}"


def _plot_alert(state: LifecycleState, check: Result) -> Figure | None:
    """Return the plot of what the alert is about: the column that drifted most, or the score where no input has."""
    if not state.shift.is_concept:
        return next(iter(check.figures), None)
    score = state.servable.task_type.score.name
    metric = describe_metric(score, state.servable.task_type, state.servable.names.targets)
    rows = [("reference", check.metrics[f"reference_{score}"]), ("production", check.metrics[score])]
    return metric.plot_values("by the labels", rows)


def _wait_for_events(state: LifecycleState) -> None:
    """Wait until the server has written the events of all that was sent."""
    from mlscale.events.store import EventStore

    store, end = EventStore(state.resolve_path("events")), time.monotonic() + _FLUSH_SECONDS
    since = datetime.fromisoformat(state.sent_since)
    while len(store.read(state.first.name, since=since)) < len(state.ids) and time.monotonic() < end:
        time.sleep(0.1)
