"""The decision: whether a challenger may take the champion's place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.evaluate.slices import SliceColumns
from mlscale.export.servable import Servable, drop_bad_rows
from mlscale.retrain.gate.class_comparison import ClassComparison, compare_classes
from mlscale.retrain.gate.gate_limits import GateLimits, find_relabelled_numbers, format_name_list
from mlscale.retrain.gate.group_changes import CLASS, HELD, RARE, GroupChange
from mlscale.retrain.gate.label_doubts import list_label_doubts
from mlscale.retrain.gate.overall_change import OverallChange, compare_overall
from mlscale.retrain.gate.paired_columns import (
    LabelledSamples,
    PairedColumns,
    check_same_names,
    collect_paired_columns,
)
from mlscale.stats.bootstrap import MIN_SAMPLES
from mlscale.stats.timing import TimesCompared, compare_times, is_interval_at_most
from mlscale.task_types.paired_metrics import MetricDefinition


@dataclass(frozen=True)
class GateDecision:
    """The result of the comparison.

    Attributes:
        metrics: the metrics, name_unit to value.
        objections: reasons against the challenger; empty: it passes all gates.
        doubts: about the window's labels, which a person has to settle before a challenger that passes is promoted.
        metric: that both are compared by; its name is in the names of `metrics`.
        classes: the comparison of classes and slices.
    """

    metrics: dict[str, float]
    objections: tuple[str, ...]
    doubts: tuple[str, ...]
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
    groups: NDArray[np.float64] | None = None,
) -> GateDecision:
    """Compare two models of any task type.

    On the held-out part of the window the challenger must be better, by the task type's paired comparison, one-sided.
    On the original data it must not be worse than `max_drop`: the lower end of a one-sided interval of the paired
    difference must lie above that; and no class and no slice may be worse (`group_changes`). One sample on one thread
    must take at most `max_latency_ratio` times the champion's CPU time: the interval of the ratio must lie below that.
    What is undecided for all samples, or about the time, keeps the champion. A challenger that passes all of it is for
    a person to decide on where the window's labels are in doubt (`label_doubts`).

    Args:
        champion, challenger: as they are served.
        window: labelled samples of production that the challenger was not trained on.
        original: validation samples of the earlier data.
        limits: the limits.
        trained: samples of production that the challenger was trained on: the champion was not, and shows which of
            their labels are new.
        slices: columns of the original data, a value for each of its samples.
        groups: the group of each sample of the window, such as its user, (n,); None if not known.

    Raises:
        MLScaleError: the models predict other classes, no sample of the window or of the original data can be
            predicted, or an unknown class is declared relabelled.
    """
    check_same_names(champion, challenger)
    ignored = find_relabelled_numbers(champion.task_type, champion.names, limits.relabelled)
    # One sample is enough for the time, and any sample has the shape of all.
    batches = list(window)
    is_one_class = champion.task_type.is_one_class
    held_out = collect_paired_columns(champion, challenger, batches, with_inputs=is_one_class)
    now = _require_samples(held_out, "window", "held-out window")
    # Only the search for relabelled classes reads it, and that needs one class for each sample.
    learned = collect_paired_columns(champion, challenger, trained, with_inputs=True) if is_one_class else None
    before, others = None, None
    if limits.old:
        every = collect_paired_columns(champion, challenger, original)
        before = _require_samples(every, "gate.old", "original data").select_classes(ignored, champion)
        if not len(before):
            raise _build_empty_error("gate.relabelled", "original data without the relabelled classes")
        others = _compare_all(champion, before, limits)
    times = _compare_latency(champion, challenger, batches, limits.max_latency_ratio)
    current = _compare_all(champion, now, limits, groups)
    classes = compare_classes(champion, now, learned, before, limits, slices, ignored)
    not_finite = now.not_finite + (before.not_finite if before is not None else 0)
    metrics = {
        **_build_metrics("window", current, now),
        "window_p_better": current.p_better,
        **(_build_metrics("original", others, before) if others is not None and before is not None else {}),
        **_build_time_metrics(times),
    }
    objections = list_objections(current, others, classes, times, limits, not_finite)
    doubts: list[str] = []
    # Where all of what is right has changed, nothing is left that the window could contradict.
    if is_one_class and before is not None:
        parts = [now] if learned is None else [now, learned]
        names = champion.task_type.list_class_names(champion.names)
        doubts = list_label_doubts(parts, before, names, ignored, limits.min_kappa)
    return GateDecision(metrics, tuple(objections), tuple(doubts), current.metric, classes)


def _compare_all(
    servable: Servable, columns: PairedColumns, limits: GateLimits, groups: NDArray[np.float64] | None = None
) -> OverallChange:
    compared = None if groups is None else groups[columns.rows]
    return compare_overall(servable.task_type, columns, alpha=limits.alpha, tolerance=limits.tolerance, groups=compared)


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
        **({f"{part}_groups": change.groups} if change.groups else {}),
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


_MOST_NAMES = 5


def list_objections(
    window: OverallChange,
    original: OverallChange | None,
    classes: ClassComparison,
    times: TimesCompared,
    limits: GateLimits,
    not_finite: int,
) -> list[str]:
    """Return the reasons against the challenger; empty if it passes all gates.

    Args:
        window: the change on the held-out window.
        original: that on the original data; None if it does not count.
        classes: the change of classes and slices.
        times: CPU times, the challenger first.
        limits: of the gate.
        not_finite: samples for which the challenger's output alone is not finite.
    """
    reasons = []
    if not_finite:
        reasons.append(f"its output is not a finite number for {not_finite:,} samples")
    # One-sided: a challenger that is different but worse must not pass. `not <=`: NaN is undecided.
    if not window.p_better <= limits.alpha:
        reasons.append(_describe_not_better(window, limits))
    # The end of the interval, not the measured difference: a small sample can't prove that nothing was forgotten.
    if original is not None and not original.low >= -limits.max_drop:
        reasons.append(_describe_forgotten(original, limits))
    reasons += _list_class_objections(classes, limits)
    reasons += _explain_contradictions(classes, limits, is_better=window.p_better <= limits.alpha)
    # `is not True`: None is undecided, which must not promote.
    if (fast := is_interval_at_most(times.ratio, limits.max_latency_ratio)) is not True:
        ratio = times.ratio
        reasons.append(
            f"{'' if fast is False else 'undecided whether it is fast enough: '}one sample takes {ratio.value:.2f}× as "
            f"long ({ratio.low:.2f} to {ratio.high:.2f}, gate.max_latency_ratio {limits.max_latency_ratio:g})"
        )
    return reasons


def _describe_not_better(change: OverallChange, limits: GateLimits) -> str:
    few = f"; at least {change.needed} are needed" if (change.groups or change.samples) < change.needed else ""
    of_groups = f" of {change.groups:,} groups" if change.groups else ""
    name = change.metric.display_name
    # Flips are counts: they show how far a share has changed, but not an error that has a unit.
    measured = "" if change.metric.is_share else f"{name} {change.second:.4g}, the champion's {change.first:.4g}; "
    return (
        f"it is not surely better on the {change.samples:,} held-out samples{of_groups}: {measured}{change.gained:,} "
        f"{_describe_flips(change)[0]}, {change.lost:,} {_describe_flips(change)[1]} (p {change.p_better:.2g}, "
        f"gate.alpha {limits.alpha:g}{few})"
    )


def _describe_flips(change: OverallChange) -> tuple[str, str]:
    exact = change.metric.name in ("accuracy", "exact_match")
    return ("more right", "more wrong") if exact else ("better", "worse")


def _describe_forgotten(change: OverallChange, limits: GateLimits) -> str:
    fix = "; if what is right has changed for all: gate.old=false force=true"
    unit = "" if change.metric.is_share else f" of the champion's {change.metric.display_name}"
    # NaN: too few samples for an interval, and a percentage of it would be printed as nan.
    if change.low != change.low:
        return f"{change.samples:,} original samples are too few to compare on, at least {MIN_SAMPLES} are needed{fix}"
    return (
        f"on the {change.samples:,} original samples it may be worse by {-change.low:.2%}{unit} (measured "
        f"{change.metric.describe_difference(change.difference)}, gate.max_drop {limits.max_drop:.2%}){fix}"
    )


def _list_class_objections(classes: ClassComparison, limits: GateLimits) -> list[str]:
    reasons = []
    worse = classes.list_worse_classes()
    total = sum(change.family == CLASS and change.name != RARE for change in classes.original)
    if worse:
        reasons.append(
            f"{len(worse)} of {total} classes are worse on the original data: {_list_changes(worse)} "
            f"(gate.max_class_drop {limits.max_class_drop:.2%})"
        )
    # A class that is listed as worse needs no second reason.
    unshown = [name for name in classes.undecided if name not in {change.name for change in worse}]
    if unshown:
        reasons.append(f"the original data does not show that it still knows {_list_names(unshown)}")
    # What harmed a class is only named where the window contradicts it; other classes may have got worse by chance.
    # With it those that are not shown to be kept, or whose samples are labelled as a harmed one: of two swapped
    # classes the challenger may have lost one by now, and may keep the other.
    harmed = {change.name for change in worse}.union(unshown) & classes.relabelled.keys()
    unharmed = {change.name for change in classes.original if change.family == CLASS and change.status == HELD}
    named = [name for name, labels in classes.relabelled.items() if name not in unharmed or labels.label in harmed]
    if harmed:
        contradictions = "; ".join(
            f"{labels.count:,} of {labels.samples:,} that the champion predicts as {name} are labelled otherwise, "
            f"mostly {labels.label}"
            for name, labels in list(classes.relabelled.items())[:_MOST_NAMES]
            if name in named
        )
        reasons.append(
            f"the window's labels contradict these classes: {contradictions}: they are poisoned, or their meaning has "
            f"changed, then gate.relabelled={format_name_list([*limits.relabelled, *named])}"
        )
    if slices := classes.list_worse_slices():
        reasons.append(f"slices are worse on the original data: {_list_changes(slices, with_family=True)}")
    return reasons


def _explain_contradictions(classes: ClassComparison, limits: GateLimits, *, is_better: bool) -> list[str]:
    """Return why a challenger is not better, or worse for some classes, where the window's labels contradict them."""
    # Never a reason of its own: a challenger that is better, and has harmed none of them, may pass.
    worse = {change.name for change in classes.list_worse_classes()}
    named = [name for name in classes.contradicted if name not in classes.relabelled]
    if not named or (is_better and not (worse | set(classes.forgotten) | set(classes.unlearned)) & set(named)):
        return []
    forgotten = [change for change in classes.original if change.name in set(classes.forgotten) - worse]
    lost = f", and it has lost more there than of the others ({_list_changes(forgotten)})" if forgotten else ""
    if not lost and classes.unlearned:
        lost = ", and it is as wrong about them in the window"
    return [
        f"the window's labels contradict {_list_names(named)}, which the champion knows on the original data{lost}: "
        f"they are poisoned, or their meaning has changed, then "
        f"gate.relabelled={format_name_list([*limits.relabelled, *named])}"
    ]


def _list_changes(changes: Sequence[GroupChange], *, with_family: bool = False) -> str:
    texts = [
        f"{f'{change.family} ' if with_family else ''}{change.name}: {change.first:.4g} to {change.second:.4g} "
        f"({change.lost:,} negative flips of {change.samples:,})"
        for change in changes[:_MOST_NAMES]
    ]
    return ", ".join(texts) + (f" and {len(changes) - _MOST_NAMES} more" if len(changes) > _MOST_NAMES else "")


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (
        f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    )
