"""Find classes whose meaning has changed in the window: what the champion predicts as one class is labelled as another.

Changed labels and poisoned ones look the same. The champion was trained on nothing of the window: all of it counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.discoveries import reject_holm

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
