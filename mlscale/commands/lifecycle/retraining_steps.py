"""The last quarter of a tour: a retraining behind a gate, and a swap that no client notices."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mlscale.commands.lifecycle.clients import ClientObservations, send_checked_requests
from mlscale.commands.lifecycle.production_samples import LabelledSamples
from mlscale.commands.lifecycle.step_log import StepOutcome
from mlscale.commands.lifecycle.step_state import LifecycleState, RunningLoad
from mlscale.report import HorizontalBarPlot, LinePlot, Result, Series
from mlscale.stats.paired import PairedComparison, compare_paired

# Until the server has swapped at most; under load after that; of a retraining, before Locust ends by itself.
_SWAP_SECONDS, _AFTER_SECONDS, _LONGEST_SECONDS = 30.0, 3.0, 7200
_USERS, _RATE = 4, 50
_ALPHA, _MAX_DROP = 0.05, 0.03
_SHOWN_SECONDS, _BIN_SECONDS = 4.0, 0.25


def retrain_champion(state: LifecycleState) -> StepOutcome:
    """Run one retraining cycle while clients send requests: the gate promotes the challenger, or stops the tour."""
    state.load = _start_load(state)
    result = state.run_service_command(
        "retrain",
        f"ref={state.champion}",
        f"events={state.resolve_path('events')}",
        f"passes={state.settings.retrain_passes}",
        f"gate.alpha={_ALPHA}",
        f"gate.max_drop={_MAX_DROP}",
        "snapshot=false",
    )
    metrics = result.metrics
    # The cycle ended before a comparison: too few samples, or the export was refused.
    if "challenger_window_accuracy" not in metrics:
        return StepOutcome("rejected", result.sentence, False, page="retrain.html")
    before, after = metrics["champion_window_accuracy"], metrics["challenger_window_accuracy"]
    return StepOutcome(
        f"{before:.2%} → {after:.2%}",
        f"promoted: p {metrics['window_p_better']:.1g} on held-out images of the window; on the original data "
        f"{metrics['original_difference']:+.2%}, at worst {metrics['original_difference_low']:+.2%}"
        if result.ok
        else result.sentence,
        result.ok,
        {f"gate_{name}": metrics[name] for name in _GATE_METRICS if name in metrics},
        HorizontalBarPlot(
            "Held-out part of the window", [("champion", 100 * before), ("challenger", 100 * after)], "%", 100.0
        ),
        "retrain.html",
    )


_GATE_METRICS = ("champion_window_accuracy", "challenger_window_accuracy", "window_p_better", "original_difference")


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
    locust = _end_load(state)
    dropped, wrong = len(observations.dropped) + int(locust.metrics["failures"]), len(observations.wrong)
    requests = observations.requests + int(locust.metrics["requests"])
    shifted, original = (
        _prove_improvement(state, state.samples.held_out.apply_shift(state.settings.shift)),
        _prove_improvement(state, state.samples.held_out),
    )
    better, retained = shifted.now.p_better < _ALPHA, original.now.low >= -_MAX_DROP
    swapped = champion.ref != state.first.ref and bool(observations.versions[champion.ref])
    whole = (
        not dropped and not wrong and bool(locust.metrics["requests"]) and bool(observations.versions[state.first.ref])
    )
    phrases = (
        f"{state.first.ref} → {champion.ref}" if swapped else f"{champion.ref} does not answer",
        f"{shifted.before:.2%} → {shifted.after:.2%} on shifted validation images not sent before "
        f"(p {shifted.now.p_better:.1g}), {original.before:.2%} → {original.after:.2%} on the original ones",
        *(observations.dropped[:1] + observations.wrong[:1]),
    )
    return StepOutcome(
        f"{dropped} dropped, {wrong} wrong of {requests:,} requests",
        "; ".join(phrases),
        swapped and whole and better and retained,
        {
            "swap_requests": requests,
            "swap_dropped": dropped,
            "swap_wrong": wrong,
            "swap_checked": sum(observations.versions.values()),
            "shifted_accuracy_before": shifted.before,
            "shifted_accuracy": shifted.after,
            "shifted_p_better": shifted.now.p_better,
            "original_accuracy_before": original.before,
            "original_accuracy": original.after,
            "original_difference_low": original.now.low,
        },
        _plot_answers(observations, champion.ref),
        "loadtest-swap.html",
    )


def _start_load(state: LifecycleState) -> RunningLoad:
    """Start Locust and clients that check each answer, all with shifted images, as production sends them now."""
    traffic = state.samples.traffic.apply_shift(state.settings.shift)
    samples = traffic.save_samples(state.resolve_path("shifted.npz"))
    locust = state.start_lifecycle_process(
        "loadtest",
        f"ref={state.url}",
        f"samples={samples}",
        f"users={_USERS}",
        f"rate={_RATE}",
        f"seconds={_LONGEST_SECONDS}",
        "warmup_s=0",
        "output=json",
    )

    def predict_expected(version: str) -> NDArray[Any]:
        probabilities: NDArray[Any] = state.load_servable(version).predict(traffic.raw).probabilities
        return probabilities

    # A stack inside the tour's: `check_swap` closes it earlier, a tour that stops before closes it with
    # everything else.
    ends = state.ends.enter_context(ExitStack())
    return RunningLoad(
        locust, ends.enter_context(send_checked_requests(state.url, traffic.raw, predict_expected)), ends
    )


def _end_load(state: LifecycleState) -> Result:
    """End the load; return Locust's measurements."""
    state.load.ends.close()
    # SIGUSR1 ends the measured seconds early, and Locust still reports what it has measured.
    state.load.locust.stop_command(signal.SIGUSR1)
    result = Result.from_dict(json.loads(state.load.locust.out.read_text(encoding="utf-8")))
    state.tour.write_step_result(result, "loadtest-swap")
    return result


@dataclass(frozen=True)
class SwapProof:
    """Accuracy before and after the retraining, on the same images."""

    before: float
    after: float
    now: PairedComparison


def _prove_improvement(state: LifecycleState, samples: LabelledSamples) -> SwapProof:
    """Compare the first version, computed here, with the answers of the server now."""
    before = samples.compare_labels(state.load_servable(state.first.ref).predict(samples.raw).labels)
    after = samples.compare_labels(state.client.request_predictions(samples.raw).labels)
    return SwapProof(float(before.mean()), float(after.mean()), compare_paired(before, after))


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
