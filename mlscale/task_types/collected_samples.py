"""The samples of an evaluation pass: columns of numpy arrays, what they mean, and the worst of them.

Scores by class: how good the predictions of a model are for each class, or for each target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Columns = Mapping[str, NDArray[Any]]
"""Columns of n samples, n first."""


@dataclass(frozen=True)
class TaskInfo:
    """The classes or targets of a task, as far as reports need them.

    Attributes:
        labels: names of the classes by number; '0', '1', … where they have none.
        mean, std: of each channel, that images were normalised by; empty where they were not.
        targets: names of what is predicted, in regression.
        positive: of two classes the number of the one that curves are about; None for the rarer one.
    """

    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    targets: tuple[str, ...] = ()
    positive: int | None = None

    def get_class_name(self, number: int) -> str:
        """Return the name of a class."""
        return self.labels[number] if 0 <= number < len(self.labels) else str(number)


class WorstSample(NamedTuple):
    """A sample that the model predicts wrongly.

    Attributes:
        loss: of it.
        row: its index among the samples.
        key: its name.
        x: as the model was given it, (…).
        masks: images of more than one channel each: truth and prediction masks in segmentation, uint8 (h, w).
    """

    loss: float
    row: int
    key: str
    x: NDArray[Any]
    masks: tuple[NDArray[Any], ...] = ()


@dataclass(eq=False)
class CollectedSamples:
    """All samples of one evaluation pass.

    Attributes:
        task_info: the classes or targets.
        keys: names of the samples, in order.
        columns: of each sample, n first.
        worst: the samples of the largest losses, largest first; of a classifier, wrongly predicted ones only.
        logits: of some samples, (m, k); `logit_rows` has their indices.
    """

    task_info: TaskInfo
    keys: list[str]
    columns: dict[str, NDArray[Any]]
    worst: list[WorstSample]
    logits: NDArray[np.float32] | None = None
    logit_rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.keys)


def convert_to_columns(**tensors: Tensor) -> dict[str, NDArray[Any]]:
    """Return tensors of n samples as columns in numpy, by name."""
    return {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in tensors.items()}


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
