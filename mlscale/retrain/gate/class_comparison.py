"""Compare two models class by class and slice by slice, on the original data and on the window."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.evaluate.slices import SliceColumns, split_by_value
from mlscale.export.servable import Servable
from mlscale.retrain.gate.gate_limits import GateLimits
from mlscale.retrain.gate.group_changes import (
    CLASS,
    RARE,
    WORSE,
    GroupChange,
    GroupLimits,
    SampleGroup,
    compare_groups,
)
from mlscale.retrain.gate.overall_change import compute_flip_tolerance, compute_scores
from mlscale.retrain.gate.paired_columns import PairedColumns
from mlscale.stats.discoveries import reject_holm
from mlscale.task_types.class_scores import ClassScores
from mlscale.task_types.collected_samples import Columns

_COLLAPSE = 1 / 3
"""The share of what the champion had right whose loss is a collapse. One half missed one of 40 poisoned classes of five
samples. A good challenger is compared by it only where the window contradicts a class."""


@dataclass(frozen=True)
class RelabelledName:
    """A class that most of the window's labels contradict.

    Attributes:
        label: the most frequent other label.
        count: labels that contradict it.
        samples: that the champion predicts as this class.
    """

    label: str
    count: int
    samples: int


@dataclass(frozen=True)
class ClassComparison:
    """The comparison of all classes and slices.

    Attributes:
        original: of each class and slice on the original data; empty where they are not tested.
        window: of each class on the held-out window, without a decision.
        relabelled: classes that most of the window's labels contradict, by name.
        undecided: of them, those of which the original data can't show that the challenger still knows them.
        contradicted: classes that the champion knows, but for the labels of the window, by any task type.
        forgotten: of them, those of which the challenger has lost more on the original data than of the others; of
            samples with several labels alone.
        unlearned: of them, those about which the challenger is as wrong in the window; of such samples, too.
    """

    original: tuple[GroupChange, ...] = ()
    window: tuple[GroupChange, ...] = ()
    relabelled: Mapping[str, RelabelledName] = field(default_factory=dict)
    undecided: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()
    forgotten: tuple[str, ...] = ()
    unlearned: tuple[str, ...] = ()

    def list_worse_classes(self) -> list[GroupChange]:
        """Return the classes that got worse on the original data, the largest loss first."""
        return _sort_worst(change for change in self.original if change.family == CLASS)

    def list_worse_slices(self) -> list[GroupChange]:
        """Return the slices that got worse on the original data, the largest loss first."""
        return _sort_worst(change for change in self.original if change.family != CLASS)


def _sort_worst(changes: Iterable[GroupChange]) -> list[GroupChange]:
    return sorted(
        (change for change in changes if change.status == WORSE), key=lambda change: change.second - change.first
    )


def compare_classes(
    champion: Servable,
    window: PairedColumns,
    trained: PairedColumns | None,
    original: PairedColumns | None,
    limits: GateLimits,
    slices: SliceColumns | None,
    ignored: NDArray[np.int64],
) -> ClassComparison:
    """Compare two models class by class.

    Args:
        champion: the champion.
        window: the held-out part of the window.
        trained: the part that the challenger was trained on; the champion was not.
        original: the original data, without the classes that are declared relabelled; None if it does not count.
        limits: of the gate.
        slices: columns of the original data, a value for each sample that was given.
        ignored: numbers of the classes that are declared relabelled.
    """
    task_type = champion.task_type
    names = task_type.list_class_names(champion.names)
    window_groups = _list_class_groups(champion, window, names)
    seen = [_measure_group(group, limits, champion) for group in window_groups]
    if original is None:
        return ClassComparison(window=tuple(seen))
    counted = np.delete(np.arange(len(names)), ignored)
    groups = _list_class_groups(champion, original, names, counted)
    before = _collect_scores(champion, original.first, names, counted)
    now = _collect_scores(champion, window.first, names)
    contradicted = find_contradicted_classes(now, before, limits.alpha)
    # Each group is compared with the others of its family, which a single class does not have.
    groups = groups if len(groups) > 1 else []
    groups += _list_slice_groups(champion, original, slices)
    changes = compare_groups(groups, _build_group_limits(groups, limits, champion, original))
    # Where samples have one class each, `relabelled` finds swapped classes, and a drift costs contradicted ones a few.
    is_searched = not task_type.is_one_class
    searched = contradicted if is_searched else ()
    forgotten = find_forgotten_classes(searched, changes, limits.max_drop, limits.alpha)
    unlearned = find_unlearned_classes(searched, _collect_scores(champion, window.second, names), before)
    classes: tuple[RelabelledClass, ...] = ()
    # Only here does a sample have one class number, which the search for relabelled classes counts.
    if task_type.is_one_class:
        classes = _find_relabelled(window, trained, limits.alpha)
    relabelled = {
        _get_name(names, item.number): RelabelledName(_get_name(names, item.label), item.relabelled, item.samples)
        for item in classes
        if item.number not in ignored
    }
    known = {change.name: change for change in changes if change.family == CLASS}
    undecided = tuple(name for name in relabelled if not _is_retained(known.get(name)))
    return ClassComparison(changes, tuple(seen), relabelled, undecided, contradicted, forgotten, unlearned)


def _is_retained(change: GroupChange | None) -> bool:
    """Return whether the challenger still knows most of what the champion did of a class."""
    # Not tested on the original data, so nothing there shows that it is retained.
    if change is None:
        return False
    right = change.first * change.samples
    # A class that the window has relabelled collapses or it does not: a third of a few samples tells which. A test of
    # its level would need more samples than a rare class has.
    return right >= 1 and (change.lost - change.gained) / right < _COLLAPSE


def _find_relabelled(window: PairedColumns, trained: PairedColumns | None, alpha: float) -> tuple[RelabelledClass, ...]:
    parts = [window] if trained is None else [window, trained]
    truth, first, second = (
        np.concatenate([np.asarray(getattr(part, side)[name], np.int64) for part in parts])
        for side, name in (("first", "truth"), ("first", "predicted"), ("second", "predicted"))
    )
    return find_relabelled_classes(truth, first, second, alpha)


def _list_class_groups(
    servable: Servable, columns: PairedColumns, names: Sequence[str], numbers: NDArray[np.int64] | None = None
) -> list[SampleGroup]:
    """Return the samples of each class.

    Args:
        servable: the champion.
        columns: of both models.
        names: of all classes by number.
        numbers: of the classes that the columns have; by default, of all.
    """
    named = _iterate_named_scores(servable, (columns.first, columns.second), names, numbers)
    return [SampleGroup(CLASS, name, scores.first, scores.second) for name, scores in named]


def _collect_scores(
    servable: Servable, model: Columns, names: Sequence[str], numbers: NDArray[np.int64] | None = None
) -> dict[str, ModelScores]:
    """Return the scores of one model of each class; see `_list_class_groups`."""
    # On both sides: samples that the other model alone predicts as a class show nothing of what this one knows.
    named = _iterate_named_scores(servable, (model, model), names, numbers)
    return {name: ModelScores(scores.first, scores.chance) for name, scores in named}


def _iterate_named_scores(
    servable: Servable,
    sides: tuple[Columns, Columns],
    names: Sequence[str],
    numbers: NDArray[np.int64] | None,
) -> Iterator[tuple[str, ClassScores]]:
    for scores in servable.task_type.iterate_class_scores(*sides):
        number = scores.number
        # Samples of one class each keep their numbers where others are left out; columns of classes move up.
        if numbers is not None and not servable.task_type.is_one_class and number < len(numbers):
            number = int(numbers[number])
        yield _get_name(names, number), scores


def _list_slice_groups(servable: Servable, columns: PairedColumns, slices: SliceColumns | None) -> list[SampleGroup]:
    first, second = compute_scores(servable.task_type, columns)
    is_known = ~np.isnan(first + second)
    groups = []
    for column, values in (slices or {}).items():
        parts = split_by_value([values[row] for row in columns.rows.tolist()])
        # A single value is all samples.
        for value, mask in parts if len(parts) > 1 else ():
            if (mask & is_known).any():
                groups.append(SampleGroup(column, value, first[mask & is_known], second[mask & is_known]))
    return groups


def _build_group_limits(
    groups: Sequence[SampleGroup], limits: GateLimits, servable: Servable, columns: PairedColumns
) -> GroupLimits:
    # By the values: whatever the metric, scores of 0 and 1 alone have the interval of paired proportions.
    is_binary = all(np.isin(side, (0, 1)).all() for group in groups for side in (group.first, group.second))
    first, _ = compute_scores(servable.task_type, columns)
    tolerance = 0.0 if is_binary else compute_flip_tolerance(servable.task_type, first, limits.tolerance)
    return GroupLimits(
        limits.alpha,
        limits.max_drop,
        # A class need not be better than all of them together.
        max(limits.max_class_drop, limits.max_drop),
        tolerance,
        servable.task_type.score.is_share,
        is_binary,
    )


def _measure_group(group: SampleGroup, limits: GateLimits, servable: Servable) -> GroupChange:
    """Return a group's scores without a test."""
    tolerance = 0.0
    if not (np.isin(group.first, (0, 1)).all() and np.isin(group.second, (0, 1)).all()):
        tolerance = limits.tolerance * (1 if servable.task_type.score.is_share else float(abs(group.first).mean()))
    change = group.second - group.first
    gained, lost = int((change > tolerance).sum()), int((change < -tolerance).sum())
    mean = float(group.first.mean()), float(group.second.mean())
    return GroupChange(group.family, group.name, len(group), *mean, gained, lost, np.nan, np.nan, False, "")


def _get_name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


_LOST, _RETAINED = 0.5, 0.7
"""The share of its agreement on the original data that a contradicted class has at most, and the other classes at
least."""
_LEAST = 5
"""Samples of a class below which nothing is known of it."""


@dataclass(frozen=True, eq=False)
class ModelScores:
    """A model's scores of the samples of a class.

    Attributes:
        values: higher is better, (n,).
        chance: their mean if the model predicted as often as it does, whatever is right.
    """

    values: NDArray[np.float64]
    chance: float = 0.0

    def compute_agreement(self) -> float:
        """Return how far the scores are above chance, 1 at most, as Cohen's kappa.

        Without the correction a label that most samples have keeps over half of a weak champion's score by chance.
        """
        return (float(self.values.mean()) - self.chance) / (1 - self.chance) if self.chance < 1 else 0.0


def find_contradicted_classes(
    window: Mapping[str, ModelScores], original: Mapping[str, ModelScores], alpha: float
) -> tuple[str, ...]:
    """Return the names of the classes that the window contradicts; none where most classes got worse, as after a drift
    of the inputs.

    Args:
        window: the champion's scores of each class in the window.
        original: the same on the original data.
        alpha: the probability of naming any by chance.
    """
    shares = _compute_retained_shares(window, original)
    lost = [name for name, share in shares.items() if share <= _LOST]
    others = [share for name, share in shares.items() if name not in lost]
    # With no other class there is nothing that shows that the inputs are what they were.
    if not others or np.median(others) < _RETAINED:
        return ()
    return tuple(name for name in lost if _is_worse(window[name], original[name], alpha / len(shares)))


def find_unlearned_classes(
    contradicted: Collection[str], window: Mapping[str, ModelScores], original: Mapping[str, ModelScores]
) -> tuple[str, ...]:
    """Return the contradicted classes about which the challenger is as wrong in the window as the champion was.

    It is better by other classes then, and its promotion would make the window a part of what later ones learn from:
    labels that no model has learned.

    Args:
        contradicted: names of classes.
        window: the challenger's scores of each class in the window.
        original: the champion's on the original data.
    """
    shares = _compute_retained_shares(window, original)
    return tuple(name for name in contradicted if shares.get(name, 1.0) <= _LOST)


def find_forgotten_classes(
    contradicted: Collection[str], changes: Sequence[GroupChange], max_drop: float, alpha: float
) -> tuple[str, ...]:
    """Return the contradicted classes of which the challenger has lost more on the original data than of the others.

    A champion that is far from trained gets better by any training: of a class that swapped labels have harmed it gains
    as many samples as it loses, and the difference shows nothing. The lost ones alone do, compared with those of the
    classes that nothing contradicts (Fisher's exact test, one-sided, Holm).

    Args:
        contradicted: names of classes.
        changes: of all groups on the original data.
        max_drop: the share of a class that may be lost in any case.
        alpha: the probability of naming any that has lost as many as the others.
    """
    from scipy.stats import fisher_exact

    classes = [change for change in changes if change.family == CLASS and change.name != RARE]
    named = [change for change in classes if change.name in contradicted]
    others = [change for change in classes if change.name not in contradicted]
    lost, samples = (sum(getattr(change, count) for change in others) for count in ("lost", "samples"))
    tables = [[[change.lost, change.samples - change.lost], [lost, samples - lost]] for change in named]
    p = [float(fisher_exact(table, alternative="greater").pvalue) for table in tables]
    return tuple(
        change.name
        for change, is_more in zip(named, reject_holm(p, alpha), strict=True)
        if is_more and change.lost > max_drop * change.samples
    )


def _compute_retained_shares(
    window: Mapping[str, ModelScores], original: Mapping[str, ModelScores]
) -> dict[str, float]:
    """Return the share of its agreement on the original data that each class has in the window, of those that have
    enough samples of both."""
    shares: dict[str, float] = {}
    for name, now in window.items():
        before = original.get(name)
        if before is None or min(len(now.values), len(before.values)) < _LEAST:
            continue
        if (agreement := before.compute_agreement()) > 0:
            shares[name] = now.compute_agreement() / agreement
    return shares


def _is_worse(window: ModelScores, original: ModelScores, level: float) -> bool:
    from scipy.stats import mannwhitneyu

    return bool(mannwhitneyu(window.values, original.values, alternative="less").pvalue <= level)


_MAJORITY = 0.5


@dataclass(frozen=True)
class RelabelledClass:
    """A class that most labels of the window contradict.

    Attributes:
        number: that the champion predicts.
        label: the most frequent other label of these samples.
        samples: that the champion predicts as this class.
        relabelled: of them, those with another label, whether the challenger has learned it or not.
    """

    number: int
    label: int
    samples: int
    relabelled: int


def find_relabelled_classes(
    truth: NDArray[Any], first: NDArray[Any], second: NDArray[Any], alpha: float
) -> tuple[RelabelledClass, ...]:
    """Return the classes of which most samples have another label, far more of them than of the other classes: drifted
    inputs change the labels of many predicted classes, and are no reason to suspect one.

    Args:
        truth: class numbers of the window, (n,).
        first, second: class numbers that champion and challenger predict, (n,).
        alpha: the probability of finding any where the shares do not differ.
    """
    from scipy.stats import binom

    if not len(truth):
        return ()
    # What the challenger has not learned can't have harmed it.
    learned = (first != truth) & (second == truth)
    samples = np.bincount(first)
    relabelled = np.bincount(first, learned).astype(np.int64)
    others, total = relabelled.sum() - relabelled, samples.sum() - samples
    # One and two are added, as of an earlier sample of each kind: no relabelled one of few does not prove a share of 0.
    share = (others + 1) / (total + 2)
    p = np.asarray(binom.sf(relabelled - 1, samples, share), np.float64)
    is_relabelled = np.zeros(len(samples), np.bool_)
    # Classes that were never predicted would only make the correction for many tests stricter.
    tested = np.flatnonzero(samples)
    is_relabelled[tested] = reject_holm(p[tested], alpha)
    # With many samples a small share is significant, too: the majority must have another label.
    is_relabelled &= relabelled > _MAJORITY * samples
    return tuple(_describe_class(number, truth[first == number]) for number in np.flatnonzero(is_relabelled).tolist())


def _describe_class(number: int, labels: NDArray[Any]) -> RelabelledClass:
    """Return what the labels of the samples call a class that the champion predicts for all of them."""
    # All of them, for a person: that a challenger has learned a part of them says nothing about the labels.
    others = labels[labels != number]
    return RelabelledClass(number, int(np.bincount(others).argmax()), len(labels), len(others))
