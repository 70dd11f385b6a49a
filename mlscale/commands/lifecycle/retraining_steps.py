"""The last quarter of a tour: a retraining behind a gate, while clients send requests."""

from __future__ import annotations

import json
import re
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

from mlscale.commands.lifecycle.clients import send_checked_requests
from mlscale.commands.lifecycle.expected_answers import ExpectedAnswers
from mlscale.commands.lifecycle.production_samples import pack_request_samples, save_request_samples
from mlscale.commands.lifecycle.service_steps import build_sample_requests
from mlscale.commands.lifecycle.step_log import StepOutcome
from mlscale.commands.lifecycle.step_state import LifecycleState, RunningLoad
from mlscale.report import Result

if TYPE_CHECKING:
    from mlscale.report import HorizontalBarPlot

ALPHA = 0.05
"""Of the gate, and of the proofs after the swap."""
# Until Locust has its first answer: it starts slowly on a machine that is busy; of a retraining, before Locust ends.
_START_SECONDS, _LONGEST_SECONDS = 120.0, 7200
_USERS, _RATE = 4, 50
_CHECKED = 200  # samples whose answers are checked under load; Locust sends all
_LISTED_NAME = re.compile(r'"([^"]*)"|([^,"]+)')


def stop_poisoned_cycle(state: LifecycleState) -> StepOutcome:
    """Run a retraining cycle on labels that contradict the earlier ones: the gate must stop it, as poisoned labels look
    the same.
    """
    state.load = start_load(state)
    result = _run_cycle(state, name="retrain-stopped")
    suggested = read_suggested_classes(result.sentence)
    # The next step types the fix of the gate's message.
    named = [name for name in state.shift.relabelled if name in suggested]
    # With two classes, and for numbers, no class is left that stays what it was: none is named.
    complete = len(named) == len(state.shift.relabelled)
    if "original_difference" not in result.metrics:
        return StepOutcome("no comparison", result.sentence, False, page="retrain-stopped.html")
    return StepOutcome(
        "promoted" if result.ok else f"stopped, {' and '.join(named)} named" if named else "stopped",
        result.sentence,
        not result.ok and complete,
        {"stopped_original_difference": result.metrics["original_difference"]},
        _plot_window(state, result),
        "retrain-stopped.html",
    )


def read_suggested_classes(sentence: str) -> list[str]:
    """Return the classes that the gate suggests to declare relabelled; empty where it suggests none."""
    suggested = re.search(r"gate\.relabelled='?\[(.*?)\]", sentence)
    # Not as YAML, where a class that is called no would be a truth value.
    return [quoted or plain for quoted, plain in _LISTED_NAME.findall(suggested[1])] if suggested else []


def retrain_champion(state: LifecycleState) -> StepOutcome:
    """Run one retraining cycle while clients send requests: the gate promotes the challenger, or stops the tour. Where
    the meaning of labels has changed, a person has confirmed it.
    """
    confirmed: tuple[str, ...] = ()
    if state.shift.is_concept:
        # At once: the pause after a cycle would be a day.
        confirmed = (_confirm_relabelling(state), "force=true")
    else:
        state.load = start_load(state)
    result = _run_cycle(state, *confirmed)
    metrics, metric = result.metrics, state.metric
    names = [f"{who}_window_{metric.name}" for who in ("champion", "challenger")]
    # The cycle ended before a comparison: too few samples, or the export was refused.
    if names[1] not in metrics:
        return StepOutcome("rejected", result.sentence, False, page="retrain.html")
    before, after = (metrics[name] for name in names)
    typed = f"with {confirmed[0]}, as a person has confirmed the change; " if confirmed else ""
    shown = [*names, "window_p_better", "original_difference"]
    return StepOutcome(
        f"{metric.definition.display_name} {metric.format_value(before)} → {metric.format_value(after)}",
        f"{typed}promoted: p {metrics['window_p_better']:.1g} on held-out samples of the window; "
        f"{_describe_original(state, result)}"
        if result.ok
        else result.sentence,
        result.ok,
        {f"gate_{name}": metrics[name] for name in shown if name in metrics},
        _plot_window(state, result),
        "retrain.html",
    )


def _run_cycle(state: LifecycleState, *overrides: str, name: str = "") -> Result:
    return state.run_service_command(
        "retrain",
        f"ref={state.champion}",
        f"events={state.resolve_path('events')}",
        f"passes={'null' if state.settings.retrain_passes is None else state.settings.retrain_passes}",
        f"gate.alpha={ALPHA}",
        f"gate.max_drop={state.max_drop:g}",
        # What was sent before the change has no labels. Where none is needed, it would be learned from, too, and with
        # it the validation samples of the proofs.
        f"window.max_samples={len(state.shifted)}",
        *overrides,
        "snapshot=false",
        name=name,
    )


def _confirm_relabelling(state: LifecycleState) -> str:
    """Return what a person types who knows that the meaning of labels has changed."""
    from mlscale.retrain.gate.gate_limits import format_name_list

    relabelled = state.shift.relabelled
    return f"gate.relabelled={format_name_list(relabelled).strip(chr(39))}" if relabelled else "gate.old=false"


def _describe_original(state: LifecycleState, result: Result) -> str:
    metrics = result.metrics
    if "original_difference" not in metrics:
        return "the original data does not count, as what is right has changed for all of it"
    changes = (metrics["original_difference"], metrics["original_difference_low"], -state.max_drop)
    measured, low, limit = map(state.metric.definition.describe_difference, changes)
    return f"on the original data {measured}, at worst {low} (the limit is {limit})"


def _plot_window(state: LifecycleState, result: Result) -> HorizontalBarPlot:
    name = state.metric.name
    rows = [(who, result.metrics[f"{who}_window_{name}"]) for who in ("champion", "challenger")]
    return state.metric.plot_values("on the held-out part of the window", rows)


def start_load(state: LifecycleState) -> RunningLoad:
    """Start Locust and clients that check each answer, all with samples as production sends them now; return once
    Locust has its first answer.

    Raises:
        MLScaleError: that takes over two minutes (exit code 5).
    """
    # What production sends now, so that the load is that of the time of the retraining.
    packed = pack_request_samples(state.shifted.raw, state.servable)
    samples, ready = save_request_samples(packed, state.resolve_path("shifted")), state.resolve_path("load-ready")
    locust = state.start_lifecycle_process(
        "loadtest",
        f"ref={state.url}",
        f"samples={samples}",
        f"users={_USERS}",
        f"rate={_RATE}",
        f"seconds={_LONGEST_SECONDS}",
        "warmup_s=0",
        f"ready_file={ready}",
        "output=json",
    )
    # Few: after the swap the clients wait until the new version's answers to all of them are computed here.
    checked = state.shifted.select_samples(np.arange(min(_CHECKED, len(state.shifted)), dtype=np.int64))
    # A stack inside the tour's: `check_swap` closes it earlier, a tour that stops before closes it with
    # everything else.
    ends = state.ends.enter_context(ExitStack())
    observations = ends.enter_context(
        send_checked_requests(
            state.url,
            build_sample_requests(state, checked),
            lambda version: ExpectedAnswers(state.load_servable(version), checked.raw),
        )
    )
    # Without this a short retraining ends on a busy machine before Locust has sent anything.
    locust.wait_until_ready(lambda: ready.exists() or None, _START_SECONDS, "the first answer")
    return RunningLoad(locust, observations, ends)


def end_load(state: LifecycleState) -> Result:
    """End the load; return Locust's measurements."""
    state.load.ends.close()
    # SIGUSR1 ends the measured seconds early, and Locust still reports what it has measured.
    state.load.locust.stop_command(signal.SIGUSR1)
    result = Result.from_dict(json.loads(state.load.locust.out.read_text(encoding="utf-8")))
    state.tour.write_step_result(result, "loadtest-swap")
    return result
