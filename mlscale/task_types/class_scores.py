"""Scores by class: how good the predictions of a model are for each class, or for each target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class ClassScores(NamedTuple):
    """Scores of two models for the samples that a class concerns; a higher score is better.

    Attributes:
        number: of the class.
        first, second: the scores, (m,) each, m ≥ 1.
        chance: the mean score of the first model if it predicted as often as it does, whatever is right.
    """

    number: int
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    chance: float = 0.0


def split_scores_by_class(
    classes: NDArray[Any], first: NDArray[np.float64], second: NDArray[np.float64]
) -> Iterator[ClassScores]:
    """Yield the scores of the samples of each class, for samples that have one class each."""
    order = np.argsort(classes, kind="stable")
    numbers, starts = np.unique(classes[order], return_index=True)
    for number, rows in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
        yield ClassScores(number, first[rows], second[rows])


def iterate_score_columns(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    is_concerned: NDArray[np.bool_],
    chance: NDArray[np.float64] | None = None,
) -> Iterator[ClassScores]:
    """Yield the scores of each class, for samples that have a score of every class.

    Args:
        first, second: scores, (n, k) each.
        is_concerned: whether a class concerns a sample, (n, k).
        chance: of each class, (k,); see `ClassScores`.
    """
    by_chance = np.zeros(first.shape[1]) if chance is None else chance
    for number in range(first.shape[1]):
        rows = is_concerned[:, number]
        if rows.any():
            yield ClassScores(number, first[rows, number], second[rows, number], float(by_chance[number]))


def drop_columns(
    columns: dict[str, NDArray[Any]], names: tuple[str, ...], numbers: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return columns of which those of the given names, (n, k), lack some classes."""
    return {name: np.delete(values, numbers, axis=1) if name in names else values for name, values in columns.items()}
