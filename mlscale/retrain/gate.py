"""The promotion gate: compares champion and challenger on the same samples, each as it is served."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.export.servable import Servable
from mlscale.stats.paired import PairedComparison, compare_paired
from mlscale.stats.timing import TimesCompared, compare_times

Labelled = Iterable[tuple[NDArray[Any], list[str]]]
"""Batches of raw samples (n, …) and the names of their classes."""


@dataclass(frozen=True)
class GateLimits:
    """The limits of the gate.

    Attributes:
        alpha: the highest probability of promoting a challenger that is not better.
        max_drop: the highest loss of accuracy on the original data, at confidence 1 - alpha.
        max_latency_ratio: the highest CPU time of one sample relative to the champion's, at 95 % confidence.
    """

    alpha: float
    max_drop: float
    max_latency_ratio: float


@dataclass(frozen=True)
class GateDecision:
    """The result of the comparison.

    Attributes:
        metrics: the metrics, name_unit to value.
        objections: reasons against the challenger; empty: it passes all gates.
    """

    metrics: dict[str, float]
    objections: tuple[str, ...]


def decide_promotion(
    champion: Servable, challenger: Servable, held_out: Labelled, original: Labelled, limits: GateLimits
) -> GateDecision:
    """Compare two models.

    On the held-out part of the window the challenger must be better, by McNemar's test on the pairs, one-sided. On the
    original validation data it must not be worse than `max_drop`: the lower end of a one-sided interval of the paired
    difference (Tango, 1998) must lie above that. One sample on one thread must take at most `max_latency_ratio` times
    the champion's CPU time: the interval of the ratio must lie below that. What is undecided keeps the champion.

    Args:
        champion, challenger: as they are served.
        held_out: labelled samples of production that the challenger was not trained on.
        original: validation samples of the earlier data.
        limits: the limits.
    """
    window, before = [_check_predictions(champion, challenger, part) for part in (held_out, original)]
    now, old = (compare_paired(*both, confidence=1 - limits.alpha) for both in (window, before))
    # Zeros are enough: the time depends on the shape.
    sample = np.zeros((1, *champion.input.shape[1:]), champion.input.dtype)
    # CPU time, since other processes of this machine do not count in it; rounds of both models alternate.
    times = compare_times(
        lambda: challenger.logits(sample), lambda: champion.logits(sample), bound=limits.max_latency_ratio
    )
    metrics = {
        "champion_window_accuracy": float(window[0].mean()),
        "challenger_window_accuracy": float(window[1].mean()),
        "window_p_better": now.p_better,
        "champion_original_accuracy": float(before[0].mean()),
        "challenger_original_accuracy": float(before[1].mean()),
        "original_difference": old.difference,
        "original_difference_low": old.low,
        "original_samples": old.samples,
        "latency_ratio": times.ratio.value,
        "latency_ratio_low": times.ratio.low,
        "latency_ratio_high": times.ratio.high,
        "champion_cpu_ms": times.second.cpu_ms,
        "challenger_cpu_ms": times.first.cpu_ms,
        "champion_latency_ms": times.second.wall_ms,
        "challenger_latency_ms": times.first.wall_ms,
    }
    return GateDecision(metrics, tuple(_list_objections(now, old, times, limits)))


def _list_objections(
    now: PairedComparison, old: PairedComparison, times: TimesCompared, limits: GateLimits
) -> list[str]:
    reasons = []
    # One-sided: a challenger that is different but worse must not pass.
    if now.p_better > limits.alpha:
        reasons.append(
            f"it is not surely better on the {now.samples} held-out samples: {now.gained} more right, {now.lost} more "
            f"wrong (p {now.p_better:.2g}, gate.alpha {limits.alpha:g})"
        )
    # The end of the interval, not the measured difference: a small sample can't prove that nothing was forgotten.
    if old.low < -limits.max_drop:
        reasons.append(
            f"on the {old.samples} original samples it may be worse by {-old.low:.2%} (measured "
            f"{old.difference:+.2%}, gate.max_drop {limits.max_drop:.2%})"
        )
    # `is not True`: None is undecided, which must not promote.
    if (fast := times.is_at_most(limits.max_latency_ratio)) is not True:
        ratio = times.ratio
        reasons.append(
            f"{'' if fast is False else 'undecided whether it is fast enough: '}one sample takes {ratio.value:.2f}× as "
            f"long ({ratio.low:.2f} to {ratio.high:.2f}, gate.max_latency_ratio {limits.max_latency_ratio:g})"
        )
    return reasons


def _check_predictions(
    champion: Servable, challenger: Servable, samples: Labelled
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return for each sample whether the champion, and whether the challenger, is correct, bool (n,) each."""
    correct: tuple[list[bool], list[bool]] = ([], [])
    # Both models in one pass: the samples are decoded once.
    for raw, names in samples:
        for model, right in zip((champion, challenger), correct, strict=True):
            right += [predicted == name for predicted, name in zip(model.predict(raw).labels, names, strict=True)]
    return np.array(correct[0], bool), np.array(correct[1], bool)
