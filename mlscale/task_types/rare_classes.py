"""Classes that are so rare that accuracy says little: which they are, and what a constant prediction reaches."""

from __future__ import annotations

from collections.abc import Sequence

from mlscale.report.text import format_percent

_LARGEST = 0.8  # of all samples: the accuracy of a model that has learnt nothing
_SMALLEST = 0.2  # of an equal share


def is_imbalanced(counts: Sequence[int]) -> bool:
    """Return whether one class has 80 % of the samples or more, or another less than a fifth of an equal share."""
    total = sum(counts)
    return (
        len(counts) > 1
        and total > 0
        and (max(counts) >= _LARGEST * total or min(counts) < _SMALLEST * total / len(counts))
    )


def describe_imbalance(counts: Sequence[int], names: Sequence[object] = ()) -> str:
    """Return the shares of the rarest class and of a constant prediction: '4.0 % ja; always nein would reach 96.0 %'.

    Empty where no class is rare.

    Args:
        counts: samples of each class.
        names: of the classes; without them they are called by their number.
    """
    if not is_imbalanced(counts):
        return ""
    # Fewer names than classes: some that training has are in no sample of validation, or the other way round.
    called = [*map(str, names), *map(str, range(len(names), len(counts)))]
    rare, large = (format_percent(pick(counts) / sum(counts), unit=" %") for pick in (min, max))
    rarest, largest = (called[counts.index(pick(counts))] for pick in (min, max))
    return f"{rare} {rarest}; always {largest} would reach {large}"
