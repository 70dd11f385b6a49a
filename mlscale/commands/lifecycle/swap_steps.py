"""The swap of a tour: no client notices it, and the new version is better."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np

from mlscale.commands.lifecycle.clients import ClientObservations
from mlscale.commands.lifecycle.expected_answers import ExpectedAnswers
from mlscale.commands.lifecycle.metric_change import MetricChange, compare_models
from mlscale.commands.lifecycle.production_samples import LabelledSamples
from mlscale.commands.lifecycle.retraining_steps import ALPHA, end_load
from mlscale.commands.lifecycle.service_steps import build_sample_requests
from mlscale.commands.lifecycle.step_log import StepOutcome
from mlscale.commands.lifecycle.step_state import LifecycleState
from mlscale.export.servable import Servable
from mlscale.report import LinePlot, Series

# Until the server has swapped at most; under load after that.
_SWAP_SECONDS, _AFTER_SECONDS = 30.0, 3.0
_SHOWN_SECONDS, _BIN_SECONDS = 4.0, 0.25


def check_swap(state: LifecycleState) -> StepOutcome:
    """Check that the server has followed the alias: nothing was dropped or wrong, and the new version is better."""
    champion = state.build_registry().resolve_version(state.champion)
    observations = state.load.observations
    end = time.monotonic() + _SWAP_SECONDS
    # A Counter returns 0 for a version that has not answered yet.
    while not observations.versions[champion.ref] and time.monotonic() < end:
        time.sleep(0.05)
    # Errors after the swap count as well as those before it.
    time.sleep(_AFTER_SECONDS)
    locust = end_load(state)
    # After the load: the requests of the proofs must not change the rate that is shown.
    now, held_out = state.load_servable(champion.ref), state.samples.held_out
    shifted_samples = state.shift.apply_to(held_out)
    wrong_now = _find_wrong_answers(state, now, shifted_samples)
    shifted = compare_models(state.servable, now, shifted_samples, alpha=ALPHA, without=np.zeros(0, np.int64))
    original = _compare_on_original(state, now)
    dropped = len(observations.dropped) + int(locust.metrics["failures"])
    wrong = [*observations.wrong, *wrong_now]
    requests = observations.requests + int(locust.metrics["requests"])
    swapped = champion.ref != state.first.ref and bool(observations.versions[champion.ref])
    answered = bool(locust.metrics["requests"]) and bool(observations.versions[state.first.ref])
    # The end of the interval, as in the gate: the measured difference alone would prove nothing.
    retained = original is None or original.low >= -state.max_drop
    phrases = (
        f"{state.first.ref} → {champion.ref}" if swapped else f"{champion.ref} does not answer",
        _describe_proofs(state, shifted, original),
        *(observations.dropped[:1] + wrong[:1]),
    )
    return StepOutcome(
        f"{dropped} dropped, {len(wrong)} wrong of {requests:,} requests",
        "; ".join(phrases),
        swapped and answered and not dropped and not wrong and shifted.p_better < ALPHA and retained,
        {
            "swap_requests": requests,
            "swap_dropped": dropped,
            "swap_wrong": len(wrong),
            "swap_checked": sum(observations.versions.values()),
            **_build_proof_metrics(state, shifted, original),
        },
        _plot_answers(observations, champion.ref),
        "loadtest-swap.html",
    )


def _find_wrong_answers(state: LifecycleState, servable: Servable, samples: LabelledSamples) -> list[str]:
    """Return the answers of the server to samples that it has not seen, where they are not those of the new version:
    proofs are computed from its own outputs."""
    expected, problems = ExpectedAnswers(servable, samples.raw), []
    for row, request in enumerate(build_sample_requests(state, samples)):
        version, answer = state.client.request_prediction(request)
        if problem := expected.find_problem(answer, row):
            problems.append(f"{version}: {problem}")
    return problems


def _compare_on_original(state: LifecycleState, now: Servable) -> MetricChange | None:
    """Compare both versions on the original validation samples, without classes whose meaning has changed; None where
    it has for all."""
    if state.shift.is_concept and not state.shift.relabelled:
        return None
    numbers = [
        state.servable.task_type.list_class_names(state.servable.names).index(name) for name in state.shift.relabelled
    ]
    return compare_models(
        state.servable, now, state.samples.held_out, alpha=ALPHA, without=np.array(sorted(numbers), np.int64)
    )


def _describe_proofs(state: LifecycleState, shifted: MetricChange, original: MetricChange | None) -> str:
    what = "relabelled" if state.shift.is_concept else "shifted"
    text = (
        f"{state.metric.definition.display_name} {_format_change(state, shifted)} on {what} validation samples not "
        f"sent before (p {shifted.p_better:.1g})"
    )
    if original is None:
        return text
    left_out = f" without {' and '.join(state.shift.relabelled)}" if state.shift.relabelled else ""
    return f"{text}, {_format_change(state, original)} on the original ones{left_out}"


def _format_change(state: LifecycleState, change: MetricChange) -> str:
    return f"{state.metric.format_value(change.first)} → {state.metric.format_value(change.second)}"


def _build_proof_metrics(
    state: LifecycleState, shifted: MetricChange, original: MetricChange | None
) -> dict[str, float]:
    name = state.metric.name
    metrics = {
        f"shifted_{name}_before": shifted.first,
        f"shifted_{name}": shifted.second,
        "shifted_p_better": shifted.p_better,
    }
    if original is not None:
        metrics |= {
            f"original_{name}_before": original.first,
            f"original_{name}": original.second,
            "original_difference_low": original.low,
        }
    return metrics


def _plot_answers(observations: ClientObservations, version: str) -> LinePlot:
    """Return the plot of answers per second around the swap, by version."""
    times = [at for at, _, answered in observations.log if answered == version]
    begun = min(times, default=0.0)
    counts: dict[str, Counter[int]] = {name: Counter() for name in observations.versions}
    for at, _, answered in observations.log:
        counts[answered][int((at - begun) // _BIN_SECONDS)] += 1
    # Bin 0 begins with the first answer of the new version.
    bins = range(-int(_SHOWN_SECONDS / _BIN_SECONDS), int(_AFTER_SECONDS / _BIN_SECONDS))
    x = [bin_index * _BIN_SECONDS for bin_index in bins]
    series = [
        Series(name, [count[bin_index] / _BIN_SECONDS for bin_index in bins], x) for name, count in counts.items()
    ]
    return LinePlot("Answers by version", series, "seconds from the swap", "answers/s", zero=True)
