"""Find classes that the window's labels contradict, of any task type: the champion knows them on the original data, and
is mostly wrong about them in the window, although it still knows the others there.

Unlike `relabelled_classes` this needs no challenger that has learned the labels: mixed with earlier data that says the
opposite, it may have learned neither.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.retrain.gate.group_changes import CLASS, RARE, GroupChange
from mlscale.stats.discoveries import reject_holm

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


def find_collapsed_classes(
    window: Mapping[str, ModelScores], original: Mapping[str, ModelScores], alpha: float
) -> tuple[str, ...]:
    """Return the names of all classes where the champion is mostly wrong about each of them in the window; none where
    it still knows one. What is right has changed for all, or the inputs have: the labels do not show which.

    Args:
        window: the champion's scores of each class in the window.
        original: the same on the original data.
        alpha: the probability of naming any by chance.
    """
    shares = _compute_retained_shares(window, original)
    if not shares or max(shares.values()) > _LOST:
        return ()
    is_sure = all(_is_worse(window[name], original[name], alpha / len(shares)) for name in shares)
    return tuple(shares) if is_sure else ()


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
