"""The reasons against a challenger, in words."""

from __future__ import annotations

from collections.abc import Sequence

from mlscale.retrain.gate.class_comparison import ClassComparison
from mlscale.retrain.gate.gate_limits import GateLimits, format_name_list
from mlscale.retrain.gate.group_changes import CLASS, HELD, GroupChange
from mlscale.retrain.gate.overall_change import OverallChange
from mlscale.stats.bootstrap import MIN_SAMPLES
from mlscale.stats.timing import TimesCompared, is_interval_at_most

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
        reasons.append(_describe_forgotten(original, limits, has_classes=bool(classes.original)))
    reasons += _list_class_objections(classes, limits)
    reasons += _explain_collapse(classes, is_forgotten=bool(reasons))
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
    few = f"; at least {change.needed} are needed" if change.samples < change.needed else ""
    name = change.metric.display_name
    # Flips are counts: they show how far a share has changed, but not an error that has a unit.
    measured = "" if change.metric.is_share else f"{name} {change.second:.4g}, the champion's {change.first:.4g}; "
    return (
        f"it is not surely better on the {change.samples:,} held-out samples: {measured}{change.gained:,} "
        f"{_describe_flips(change)[0]}, {change.lost:,} {_describe_flips(change)[1]} (p {change.p_better:.2g}, "
        f"gate.alpha {limits.alpha:g}{few})"
    )


def _describe_flips(change: OverallChange) -> tuple[str, str]:
    exact = change.metric.name in ("accuracy", "exact_match")
    return ("more right", "more wrong") if exact else ("better", "worse")


def _describe_forgotten(change: OverallChange, limits: GateLimits, *, has_classes: bool) -> str:
    # Without classes there is no part of the data that could be left out.
    fix = "" if has_classes else "; if what is right has changed: gate.old=false"
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
    total = sum(change.family == CLASS for change in classes.original)
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


def _explain_collapse(classes: ClassComparison, *, is_forgotten: bool) -> list[str]:
    """Return why a challenger can't pass where the window contradicts every class; it is never a reason of its own."""
    if not classes.collapsed or not is_forgotten:
        return []
    now = {change.name: change.first for change in classes.window}
    before = {change.name: change.first for change in classes.original if change.family == CLASS}
    shown = [
        f"{name}: {before[name]:.4g} to {now[name]:.4g}" if name in before else f"{name}: {now[name]:.4g}"
        for name in classes.collapsed[:_MOST_NAMES]
        if name in now
    ]
    more = f" and {len(classes.collapsed) - _MOST_NAMES} more" if len(classes.collapsed) > _MOST_NAMES else ""
    return [
        f"the window's labels contradict every class of the champion ({', '.join(shown)}{more}): the inputs are "
        "others, the labels are poisoned, or the meaning of all classes has changed, then gate.old=false"
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
