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

from mlscale.commands.lifecycle.clients import Asked, asking
from mlscale.commands.lifecycle.production_samples import Labelled
from mlscale.commands.lifecycle.step_log import Told
from mlscale.commands.lifecycle.step_state import Load, Walk
from mlscale.report import Line, Result, Rows, Series
from mlscale.stats.paired import Paired, paired

# Until the server has swapped at most; under load after that; of a retraining, before Locust ends by itself.
_SWAP_SECONDS, _AFTER_SECONDS, _LONGEST_SECONDS = 30.0, 3.0, 7200
_USERS, _RATE = 4, 50
_ALPHA, _MAX_DROP = 0.05, 0.03
_SHOWN_SECONDS, _BIN_SECONDS = 4.0, 0.25


def retrain(walk: Walk) -> Told:
    """Run one retraining cycle while clients send requests: the gate promotes the challenger, or stops the tour."""
    walk.load = _load(walk)
    result = walk.call_service(
        "retrain",
        f"ref={walk.champion}",
        f"events={walk.place('events')}",
        f"passes={walk.settings.retrain_passes}",
        f"gate.alpha={_ALPHA}",
        f"gate.max_drop={_MAX_DROP}",
        "snapshot=false",
    )
    figures = result.metrics
    # The cycle ended before a comparison: too few samples, or the export was refused.
    if "challenger_window_accuracy" not in figures:
        return Told("rejected", result.sentence, False, page="retrain.html")
    before, after = figures["champion_window_accuracy"], figures["challenger_window_accuracy"]
    return Told(
        f"{before:.2%} → {after:.2%}",
        f"promoted: p {figures['window_p_better']:.1g} on held-out images of the window; on the original data "
        f"{figures['original_difference']:+.2%}, at worst {figures['original_difference_low']:+.2%}"
        if result.ok
        else result.sentence,
        result.ok,
        {f"gate_{name}": figures[name] for name in _JUDGED if name in figures},
        Rows("Held-out part of the window", [("champion", 100 * before), ("challenger", 100 * after)], "%", 100.0),
        "retrain.html",
    )


_JUDGED = ("champion_window_accuracy", "challenger_window_accuracy", "window_p_better", "original_difference")


def swap(walk: Walk) -> Told:
    """Check that the server has followed the alias: nothing was dropped or wrong, and the new version is better."""
    champion = walk.registry().resolve(walk.champion)
    asked = walk.load.asked
    end = time.monotonic() + _SWAP_SECONDS
    # A Counter returns 0 for a version that has not answered yet.
    while not asked.versions[champion.ref] and time.monotonic() < end:
        time.sleep(0.05)
    # Errors after the swap count as well as those before it.
    time.sleep(_AFTER_SECONDS)
    locust = _ended(walk)
    dropped, wrong = len(asked.dropped) + int(locust.metrics["failures"]), len(asked.wrong)
    requests = asked.requests + int(locust.metrics["requests"])
    shifted, original = (
        _proven(walk, walk.samples.held_out.shifted(walk.settings.shift)),
        _proven(walk, walk.samples.held_out),
    )
    better, kept = shifted.now.p_better < _ALPHA, original.now.low >= -_MAX_DROP
    swapped = champion.ref != walk.first.ref and bool(asked.versions[champion.ref])
    whole = not dropped and not wrong and bool(locust.metrics["requests"]) and bool(asked.versions[walk.first.ref])
    told = (
        f"{walk.first.ref} → {champion.ref}" if swapped else f"{champion.ref} does not answer",
        f"{shifted.before:.2%} → {shifted.after:.2%} on shifted validation images nobody had sent "
        f"(p {shifted.now.p_better:.1g}), {original.before:.2%} → {original.after:.2%} on the original ones",
        *(asked.dropped[:1] + asked.wrong[:1]),
    )
    return Told(
        f"{dropped} dropped, {wrong} wrong of {requests:,} requests",
        "; ".join(told),
        swapped and whole and better and kept,
        {
            "swap_requests": requests,
            "swap_dropped": dropped,
            "swap_wrong": wrong,
            "swap_checked": sum(asked.versions.values()),
            "shifted_accuracy_before": shifted.before,
            "shifted_accuracy": shifted.after,
            "shifted_p_better": shifted.now.p_better,
            "original_accuracy_before": original.before,
            "original_accuracy": original.after,
            "original_difference_low": original.now.low,
        },
        _over_time(asked, champion.ref),
        "loadtest-swap.html",
    )


def _load(walk: Walk) -> Load:
    """Start Locust and clients that check each answer, all with shifted images, as production sends them now."""
    traffic = walk.samples.traffic.shifted(walk.settings.shift)
    samples = traffic.save(walk.place("shifted.npz"))
    locust = walk.background(
        "loadtest",
        f"ref={walk.url}",
        f"samples={samples}",
        f"users={_USERS}",
        f"rate={_RATE}",
        f"seconds={_LONGEST_SECONDS}",
        "warmup_s=0",
        "output=json",
    )

    def expected(version: str) -> NDArray[Any]:
        probabilities: NDArray[Any] = walk.servable(version).predict(traffic.raw).probabilities
        return probabilities

    # A stack inside the tour's: `swap` closes it earlier, a tour that stops before closes it with everything else.
    ends = walk.ends.enter_context(ExitStack())
    return Load(locust, ends.enter_context(asking(walk.url, traffic.raw, expected)), ends)


def _ended(walk: Walk) -> Result:
    """End the load; return Locust's measurements."""
    walk.load.ends.close()
    # SIGUSR1 ends the measured seconds early, and Locust still reports what it has measured.
    walk.load.locust.end(signal.SIGUSR1)
    result = Result.from_dict(json.loads(walk.load.locust.out.read_text(encoding="utf-8")))
    walk.tour.keep(result, "loadtest-swap")
    return result


@dataclass(frozen=True)
class Proof:
    """Accuracy before and after the retraining, on the same images."""

    before: float
    after: float
    now: Paired


def _proven(walk: Walk, samples: Labelled) -> Proof:
    """Compare the first version, computed here, with the answers of the server now."""
    before = samples.right(walk.servable(walk.first.ref).predict(samples.raw).labels)
    after = samples.right(walk.client.predict(samples.raw).labels)
    return Proof(float(before.mean()), float(after.mean()), paired(before, after))


def _over_time(asked: Asked, version: str) -> Line:
    """Return the plot of answers per second around the swap, by version."""
    times = [at for at, _, said in asked.log if said == version]
    begun = min(times, default=0.0)
    counts: dict[str, Counter[int]] = {name: Counter() for name in asked.versions}
    for at, _, said in asked.log:
        counts[said][int((at - begun) // _BIN_SECONDS)] += 1
    # Bin 0 begins with the first answer of the new version.
    bins = range(-int(_SHOWN_SECONDS / _BIN_SECONDS), int(_AFTER_SECONDS / _BIN_SECONDS))
    x = [place * _BIN_SECONDS for place in bins]
    series = [Series(name, [count[place] / _BIN_SECONDS for place in bins], x) for name, count in counts.items()]
    return Line("Answers by version", series, "seconds from the swap", "answers/s", zero=True)
