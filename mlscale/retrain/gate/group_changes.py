"""Compare two models class by class and slice by slice on data that must not be forgotten: many small tests at once.

A class that was poisoned by its labels is one of many, and the mean over all of them hardly moves. A group with enough
samples has to be proved not worse, as all samples together. Few samples can't prove that, and a hundred proofs would
refuse every challenger: a small group is refused where it is shown to be worse than what chance and the usual exchange
of errors explain. `docs/decisions/retrain.md` has the simulation behind both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.discoveries import reject_holm
from mlscale.stats.paired import MIN_SAMPLES, compute_paired_difference, compute_score_interval

HELD, WORSE, UNDECIDED = "kept", "worse", "undecided"
CLASS, SLICE = "class", "slice"
RARE = "rare classes together"
_PRIOR_SAMPLES = 5  # by which the champion's error of a class is drawn to that of the others

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SampleGroup:
    """The samples of a class or of a slice, with a score of each model for each; a higher score is better.

    Attributes:
        family: groups of one family are compared with each other: 'class', or the column of slices.
        name: of the group.
        first, second: the scores of champion and challenger, (n,) each.
    """

    family: str
    name: str
    first: Floats
    second: Floats

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True)
class GroupLimits:
    """The limits for each group.

    Attributes:
        alpha: the probability of refusing a challenger that is worse in no group, about, for each of the two tests; and
            of passing one that is worse by `max_class_drop` in a group that has enough samples.
        max_drop: what a small group must be shown to be worse by.
        max_class_drop: what a group with enough samples must be proved not to be worse by.
        tolerance: scores that differ by no more are no flip.
        is_share: the scores are shares from 0 to 1; else both drops are shares of the champion's mean.
        is_binary: each score is 0 or 1.
    """

    alpha: float
    max_drop: float
    max_class_drop: float
    tolerance: float = 0.0
    is_share: bool = True
    is_binary: bool = True


@dataclass(frozen=True)
class GroupChange:
    """The change of one group from champion to challenger.

    Attributes:
        family, name: of the group.
        samples: their number.
        first, second: the mean score of each model.
        gained, lost: samples that became better and worse by more than the tolerance: positive and negative flips.
        low: the lower end of the difference of the means, one-sided; NaN with too few samples.
        p: the probability of losing so many where the group is not worse by more than the limit.
        is_proved: it has enough samples for a proof that it is not worse.
        status: kept, worse, or undecided.
    """

    family: str
    name: str
    samples: int
    first: float
    second: float
    gained: int
    lost: int
    low: float
    p: float
    is_proved: bool
    status: str


@dataclass(frozen=True, eq=False)
class _GroupCounts:
    """Sums over the samples of each group, (g,) each."""

    samples: Floats
    errors: Floats
    lost: Floats
    gained: Floats
    squares: Floats
    scores: Floats

    @classmethod
    def count_groups(cls, groups: Sequence[SampleGroup], limits: GroupLimits) -> _GroupCounts:
        rows = []
        for group in groups:
            change = group.second - group.first
            lost, gained = (change < -limits.tolerance).sum(), (change > limits.tolerance).sum()
            errors = (1 - group.first).sum() if limits.is_share else len(group)
            rows.append((len(group), errors, lost, gained, (change**2).sum(), abs(group.first).sum()))
        return cls(*np.array(rows, np.float64).reshape(len(rows), 6).T)

    def sum_others(self, families: NDArray[np.str_]) -> _GroupCounts:
        """Return for each group the sums over the others of its family."""
        same = families[:, None] == families[None]
        np.fill_diagonal(same, False)
        sums = (same @ values for values in vars(self).values())
        return _GroupCounts(*sums)


def compare_groups(groups: Sequence[SampleGroup], limits: GroupLimits) -> tuple[GroupChange, ...]:
    """Compare every group, in their order, with the classes that have too few samples for any test as one more group.

    Args:
        groups: with a sample at least, two or more in each family.
        limits: of the comparison.
    """
    if not groups:
        return ()
    families = np.array([group.family for group in groups])
    counts = _GroupCounts.count_groups(groups, limits)
    tolerated = _compute_tolerated_losses(counts, counts.sum_others(families), limits)
    # Chosen by what does not depend on the group's own change: else the pool would be of unlucky ones.
    is_rare = tolerated**counts.samples > limits.alpha / len(groups)
    rare = [group for group, few in zip(groups, is_rare, strict=True) if few and group.family == CLASS]
    if len(rare) > 1:
        first, second = (np.concatenate([getattr(group, side) for group in rare]) for side in ("first", "second"))
        groups = [*groups, SampleGroup(RARE, RARE, first, second)]
        counts = _GroupCounts.count_groups(groups, limits)
        families = np.append(families, CLASS)
        others = counts.sum_others(families)
        tolerated = _compute_tolerated_losses(counts, others, limits)
    else:
        others = counts.sum_others(families)
    is_proved = _find_provable_groups(counts, others, tolerated, limits)
    p = _compute_harm_p(counts, tolerated)
    is_worse = np.zeros(len(groups), np.bool_)
    small = np.flatnonzero(~is_proved)
    is_worse[small] = reject_holm(p[small], limits.alpha)
    return tuple(
        _describe_change(group, limits, float(p[row]), bool(is_proved[row]), bool(is_worse[row]), counts, row)
        for row, group in enumerate(groups)
    )


def _compute_tolerated_losses(counts: _GroupCounts, others: _GroupCounts, limits: GroupLimits) -> Floats:
    """Return the share of each group's samples that may get worse: the limit, and the usual exchange of errors.

    Two models that are equally good differ where the samples are hard: the more errors the champion has in a group, the
    more samples change. The ratio is that of the other groups; the group's own losses must not excuse themselves.
    """
    n, known = np.maximum(others.samples, 1), others.errors > 0
    ratio = np.where(known, others.lost / np.where(known, others.errors, 1), others.lost / n)
    mean_error = np.where(known, others.errors / n, 1)
    # Shrunk to the mean of the others: the error rate of a few samples is mostly chance.
    error = np.where(known, (counts.errors + _PRIOR_SAMPLES * mean_error) / (counts.samples + _PRIOR_SAMPLES), 1)
    return np.minimum(limits.max_drop + ratio * error, 1.0)


def _find_provable_groups(
    counts: _GroupCounts, others: _GroupCounts, tolerated: Floats, limits: GroupLimits
) -> NDArray[np.bool_]:
    """Return which groups have enough samples for a proof: unchanged ones pass, all of them, with about 1 - alpha."""
    from scipy.stats import norm

    n = np.maximum(others.samples, 1)
    usual = others.lost / n
    hardness = np.where(usual > 0, (tolerated - limits.max_drop) / np.where(usual > 0, usual, 1), 1)
    variance = others.squares / n * hardness
    margin = limits.max_class_drop * (1 if limits.is_share else others.scores / n)
    # Both errors: a worse group passes with alpha, and any unchanged one of all groups fails with alpha.
    bound = norm.ppf(1 - limits.alpha) + norm.ppf(1 - limits.alpha / len(n))
    enough = (variance * bound**2 <= counts.samples * margin**2) & (counts.samples >= MIN_SAMPLES)
    # Where the others do not change at all the variance is not known: then the samples must suffice for one change.
    provable: NDArray[np.bool_] = enough & (counts.samples * limits.max_class_drop > bound**2 / 2)
    return provable


def _compute_harm_p(counts: _GroupCounts, tolerated: Floats) -> Floats:
    """Return the probability of so many net losses of each group where it loses as many as are tolerated."""
    from scipy.stats import binom

    # Gained samples make up for lost ones, but are not expected: an exact test that errs on the side of the challenger.
    net = counts.lost - counts.gained
    p: Floats = np.where(net > 0, binom.sf(net - 1, counts.samples, tolerated), 1.0)
    return p


def _describe_change(
    group: SampleGroup,
    limits: GroupLimits,
    p: float,
    is_proved: bool,
    is_worse: bool,
    counts: _GroupCounts,
    row: int,
) -> GroupChange:
    lost, gained = int(counts.lost[row]), int(counts.gained[row])
    low = compute_difference_low(group.first, group.second, limits, gained, lost)
    is_kept = low >= -limits.max_class_drop
    status = HELD if is_kept else WORSE if is_proved else UNDECIDED
    return GroupChange(
        "class" if group.family == RARE else group.family,
        group.name,
        len(group),
        float(group.first.mean()),
        float(group.second.mean()),
        gained,
        lost,
        low,
        p,
        is_proved,
        WORSE if is_worse else status,
    )


def compute_difference_low(first: Floats, second: Floats, limits: GroupLimits, gained: int, lost: int) -> float:
    """Return the lower end of the difference of two means: absolute for shares, else as a share of the first."""
    if limits.is_binary:
        return compute_score_interval(gained, lost, len(first), 1 - limits.alpha)[0]
    low = compute_paired_difference(first, second, is_relative=not limits.is_share, confidence=1 - limits.alpha).low
    return low if math.isfinite(low) else math.nan
