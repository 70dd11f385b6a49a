"""Doubts about a window's labels that only a person can settle: they are wrong, or what is right has changed.

Retraining runs when inputs drift. Then a challenger learns the window next to what it knew, and the wrong labels that
it has learned harm nothing on the original data: they show in the window alone, where the champion is an unsure
witness. Three signs hold even so; where it is no witness, nothing does. `docs/decisions/retrain.md` has the simulation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.evaluate.slices import SliceColumns
from mlscale.retrain.gate.paired_columns import PairedColumns

_VANISHED = 0.05
"""The share of its expected labels that a class has at most. Shares that shifted by themselves left 9 % or more."""
_MIXED = ((20, 5, 0.35, 0.65), (20, 10, 0.2, 0.5), (10, 8, 0.75, 0.65))
"""Of what the champion predicts as a class at least: the number, how many have another label, their share; and the
highest probability that it is surer of an agreeing sample than of one of these (0.5: its confidence shows nothing)."""
_KNOWN = 0.4
"""How far the champion's other answers are above chance at least (1: all are right)."""
_EXCESS = 0.35
"""By how much more of a slice's labels contradict the champion than its confidence in them explains."""
_FEWEST, _FEWEST_IN_SLICE = 5, 20
_CELLS = 20  # of a column, and of the confidence, by quantiles
_MOST_SLICES = 3


def list_label_doubts(
    window: Sequence[PairedColumns],
    original: PairedColumns,
    names: Sequence[str],
    ignored: NDArray[np.int64],
    min_kappa: float | None,
) -> list[str]:
    """Return what makes a person's decision necessary, in words; empty where there is nothing.

    Args:
        window: parts of it, held out and trained on, with `inputs`; samples with one class each.
        original: of the original data.
        names: of all classes.
        ignored: numbers of the classes that a person has declared relabelled.
        min_kappa: of champion and labels, as Cohen's kappa; None for any.
    """
    truth, predicted, confidence = (
        np.concatenate([part.first[name] for part in window]) for name in ("truth", "predicted", "confidence")
    )
    # A model of numbered classes may have no names.
    k = int(max(truth.max(), predicted.max(), original.first["truth"].max(), len(names) - 1)) + 1
    names = [*names, *map(str, range(len(names), k))]
    is_known = ~np.isin(truth, ignored) & ~np.isin(predicted, ignored)
    labels, answers = (np.bincount(side[is_known], minlength=k) for side in (truth, predicted))
    before = np.bincount(original.first["truth"], minlength=k) / len(original)
    doubts = []
    if min_kappa is not None and is_known.any():
        agreed, chance = (truth == predicted)[is_known].mean(), labels @ answers / is_known.sum() ** 2
        if agreed - chance < min_kappa * (1 - chance):
            doubts.append(
                f"the champion agrees with {agreed:.0%} of the window's labels, {chance:.0%} would by chance "
                f"(gate.min_kappa={min_kappa:g})"
            )
    doubts += [
        f"{names[row]} is {labels[row]:,} of the window's {is_known.sum():,} labels, was {before[row]:.1%} of the "
        f"original ones, and is predicted {answers[row]:,} times by the champion"
        for row in find_vanished_classes(labels, answers, before)
    ]
    doubts += [
        f"{count:,} of {total:,} that the champion predicts as {names[row]} are labelled {names[label]}, as often "
        f"where it is sure as where it is not"
        for row, label, count, total in find_mixed_classes(
            truth[is_known], predicted[is_known], confidence[is_known], k
        )
    ]
    is_wrong = truth != predicted
    slices = find_contradicted_slices(
        [part.inputs for part in window], is_wrong & is_known, np.where(is_known, confidence, 0), k
    )
    return doubts + slices


def find_vanished_classes(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], before: NDArray[np.float64]
) -> list[int]:
    """Return the classes that hardly any label of the window names, although they were there, and are still predicted.

    Args:
        labels, predicted: how often the window's labels and the champion name each class, (k,).
        before: the share of each class in the original data, (k,).
    """
    expected = np.minimum(before * labels.sum(), predicted)
    return np.flatnonzero((expected >= _FEWEST) & (labels <= _VANISHED * expected)).tolist()


def find_mixed_classes(
    truth: NDArray[Any], predicted: NDArray[Any], confidence: NDArray[Any], count: int
) -> list[tuple[int, int, int, int]]:
    """Return classes, predicted ones, that have another's label as often where the champion is sure, and that label,
    how many have it, and of how many.

    A champion whose inputs have drifted is less sure where it errs; wrong labels do not ask how sure it is.

    Args:
        truth, predicted: class numbers, (n,).
        confidence: of the champion, (n,).
        count: of classes.
    """
    from scipy.stats import mannwhitneyu

    classes = []
    is_right = truth == predicted
    fewest = min(total for total, *_ in _MIXED)
    for number in np.flatnonzero(np.bincount(predicted, minlength=count) >= fewest).tolist():
        inside = predicted == number
        # A champion that knows little of the window is not a witness.
        if not _is_known(is_right[~inside], count):
            continue
        others = np.bincount(truth[inside & ~is_right], minlength=count)
        label = int(others.argmax())
        total, named = int(inside.sum()), int(others[label])
        most = max(
            (most for n, least, part, most in _MIXED if total >= n and named >= max(least, part * total)), default=0
        )
        if not most:
            continue
        agreed, labelled = confidence[inside & is_right], confidence[inside & (truth == label)]
        surer = (
            mannwhitneyu(agreed, labelled).statistic / (len(agreed) * len(labelled)) if len(agreed) >= _FEWEST else 0
        )
        if surer <= most:
            classes.append((number, label, named, total))
    return classes


def find_contradicted_slices(
    parts: Sequence[SliceColumns], is_wrong: NDArray[np.bool_], confidence: NDArray[Any], count: int
) -> list[str]:
    """Return the slices whose labels contradict the champion far more than its confidence explains, in words.

    Where inputs have drifted, a champion errs more, and is less sure; it does not become wrong where it is sure, in one
    range of one column.

    Args:
        parts: the inputs, by column; of each part of the window.
        is_wrong: whether the champion's prediction is not the label, (n,), in the order of the parts.
        confidence: of the champion, (n,).
        count: of classes.
    """
    from scipy.stats import norm

    order = np.argsort(confidence, kind="stable")
    cell = np.empty(len(order), np.int64)
    cell[order] = np.arange(len(order)) * _CELLS // len(order)
    expected = (np.bincount(cell, is_wrong, _CELLS) / np.maximum(np.bincount(cell, minlength=_CELLS), 1))[cell]
    variance = np.maximum(expected * (1 - expected), 0.01)
    slices, tested = [], 0
    for column in parts[0]:
        values = [value for part in parts for value in part[column]]
        for name, mask in _iterate_slices(values):
            if not _FEWEST_IN_SLICE <= mask.sum() <= len(mask) / 2 or not _is_known(~is_wrong[~mask], count):
                continue
            tested += 1
            excess = float((is_wrong[mask] - expected[mask]).sum())
            slices.append((excess / mask.sum(), excess / float(variance[mask].sum()) ** 0.5, column, name, mask))
    bound = norm.isf(0.05 / max(tested, 1))
    sure = sorted((one for one in slices if one[0] >= _EXCESS and one[1] >= bound), key=lambda one: -one[0])
    worst = {one[2]: one for one in reversed(sure)}  # of each column
    return [
        f"where {column} is {name}, {is_wrong[mask].mean():.0%} of {mask.sum():,} labels contradict the champion, "
        f"{expected[mask].mean():.0%} would by its confidence"
        for _, _, column, name, mask in sorted(worst.values(), key=lambda one: -one[0])[:_MOST_SLICES]
    ]


def _is_known(is_right: NDArray[np.bool_], count: int) -> bool:
    """Return whether the champion's answers are above chance, as Cohen's kappa of `count` classes alike."""
    return bool(len(is_right)) and float(is_right.mean()) >= _KNOWN + (1 - _KNOWN) / count


def _iterate_slices(values: Sequence[str | float | None]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the values of a column of words, and tenths of one of numbers, which overlap by half."""
    if any(isinstance(value, str) for value in values):
        words = np.array(["" if value is None else value for value in values], object)
        for word in np.unique(words[words != ""]).tolist():
            yield repr(word), words == word
        return
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    known = numbers[np.isfinite(numbers)]
    cuts = np.unique(np.quantile(known, np.linspace(0, 1, _CELLS + 1))) if len(known) else known
    for first, low in enumerate(cuts):
        for high in cuts[first : first + 3]:
            yield f"{low:.4g} to {high:.4g}", (numbers >= low) & (numbers <= high)
