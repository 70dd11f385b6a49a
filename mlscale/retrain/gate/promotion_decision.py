"""The decision: whether a challenger may take the champion's place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.evaluate.slices import SliceColumns
from mlscale.export.servable import Servable, drop_bad_rows
from mlscale.retrain.gate.class_comparison import ClassComparison, compare_classes
from mlscale.retrain.gate.gate_limits import GateLimits, find_relabelled_numbers
from mlscale.retrain.gate.gate_objections import list_objections
from mlscale.retrain.gate.overall_change import OverallChange, compare_overall
from mlscale.retrain.gate.paired_columns import (
    LabelledSamples,
    PairedColumns,
    check_same_names,
    collect_paired_columns,
)
from mlscale.stats.timing import TimesCompared, compare_times
from mlscale.task_types.paired_metrics import MetricDefinition


@dataclass(frozen=True)
class GateDecision:
    """The result of the comparison.

    Attributes:
        metrics: the metrics, name_unit to value.
        objections: reasons against the challenger; empty: it passes all gates.
        metric: that both are compared by; its name is in the names of `metrics`.
        classes: the comparison of classes and slices.
    """

    metrics: dict[str, float]
    objections: tuple[str, ...]
    metric: MetricDefinition
    classes: ClassComparison


def decide_promotion(
    champion: Servable,
    challenger: Servable,
    window: LabelledSamples,
    original: LabelledSamples,
    limits: GateLimits,
    *,
    trained: LabelledSamples = (),
    slices: SliceColumns | None = None,
) -> GateDecision:
    """Compare two models of any task type.

    On the held-out part of the window the challenger must be better, by the task type's paired comparison, one-sided.
    On the original data it must not be worse than `max_drop`: the lower end of a one-sided interval of the paired
    difference must lie above that; and no class and no slice may be worse (`group_changes`). One sample on one thread
    must take at most `max_latency_ratio` times the champion's CPU time: the interval of the ratio must lie below that.
    What is undecided for all samples, or about the time, keeps the champion.

    Args:
        champion, challenger: as they are served.
        window: labelled samples of production that the challenger was not trained on.
        original: validation samples of the earlier data.
        limits: the limits.
        trained: samples of production that the challenger was trained on: the champion was not, and shows which of
            their labels are new.
        slices: columns of the original data, a value for each of its samples.

    Raises:
        MLScaleError: the models predict other classes, no sample of the window or of the original data can be
            predicted, or an unknown class is declared relabelled.
    """
    check_same_names(champion, challenger)
    ignored = find_relabelled_numbers(champion.task_type, champion.names, limits.relabelled)
    # One sample is enough for the time, and any sample has the shape of all.
    batches = list(window)
    now = _require_samples(collect_paired_columns(champion, challenger, batches), "window", "held-out window")
    # Only the search for relabelled classes reads it, and that needs one class for each sample.
    learned = collect_paired_columns(champion, challenger, trained) if champion.task_type.is_one_class else None
    before, others = None, None
    if limits.old:
        every = collect_paired_columns(champion, challenger, original)
        before = _require_samples(every, "gate.old", "original data").select_classes(ignored, champion)
        if not len(before):
            raise _build_empty_error("gate.relabelled", "original data without the relabelled classes")
        others = _compare_all(champion, before, limits)
    times = _compare_latency(champion, challenger, batches, limits.max_latency_ratio)
    current = _compare_all(champion, now, limits)
    classes = compare_classes(champion, now, learned, before, limits, slices, ignored)
    not_finite = now.not_finite + (before.not_finite if before is not None else 0)
    metrics = {
        **_build_metrics("window", current, now),
        "window_p_better": current.p_better,
        **(_build_metrics("original", others, before) if others is not None and before is not None else {}),
        **_build_time_metrics(times),
    }
    objections = list_objections(current, others, classes, times, limits, not_finite)
    return GateDecision(metrics, tuple(objections), current.metric, classes)


def _compare_all(servable: Servable, columns: PairedColumns, limits: GateLimits) -> OverallChange:
    return compare_overall(servable.task_type, columns, alpha=limits.alpha, tolerance=limits.tolerance)


def _require_samples(columns: PairedColumns | None, where: str, what: str) -> PairedColumns:
    if columns is None:
        raise _build_empty_error(where, what)
    return columns


def _build_empty_error(where: str, what: str) -> MLScaleError:
    return MLScaleError(
        f"no sample of the {what} can be compared",
        where=where,
        why="both models must be measured on the same samples",
        fix="mlscale serve <model> sample_share=1, and send labels to POST /labels"
        if where == "window"
        else "gate.old=false",
    )


def _compare_latency(
    champion: Servable,
    challenger: Servable,
    batches: Sequence[tuple[Sequence[Any] | NDArray[Any], NDArray[Any]]],
    bound: float,
) -> TimesCompared:
    """Compare the CPU time of the graphs for one sample."""
    sides = []
    # The challenger first: the ratio is its time divided by the champion's.
    for model in (challenger, champion):
        # The first sample that the model takes.
        packed = (model.pack_samples([raw[row]]) for raw, _ in batches for row in range(len(raw)))
        sides.append((model, drop_bad_rows(next(one for one in packed if not one.bad))))
    (second, second_tensors), (first, first_tensors) = sides
    # CPU time, since other processes of this machine do not count in it; rounds of both models alternate.
    return compare_times(lambda: second.compute(second_tensors), lambda: first.compute(first_tensors), bound=bound)


def _build_metrics(part: str, change: OverallChange, columns: PairedColumns) -> dict[str, float]:
    name = change.metric.name
    return {
        f"champion_{part}_{name}": change.first,
        f"challenger_{part}_{name}": change.second,
        f"{part}_difference": change.difference,
        # JSON has no NaN, and the journal takes none: with too few samples there is no end.
        **({f"{part}_difference_low": change.low} if math.isfinite(change.low) else {}),
        f"{part}_samples": len(columns),
        f"{part}_negative_flips": change.lost,
        f"{part}_positive_flips": change.gained,
        f"{part}_left_out": columns.left_out + columns.not_finite,
    }


def _build_time_metrics(times: TimesCompared) -> dict[str, float]:
    return {
        "latency_ratio": times.ratio.value,
        "latency_ratio_low": times.ratio.low,
        "latency_ratio_high": times.ratio.high,
        "champion_cpu_ms": times.second.cpu_ms,
        "challenger_cpu_ms": times.first.cpu_ms,
        **times.list_wall_times("challenger", "champion"),
    }
