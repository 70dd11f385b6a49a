"""The samples of an evaluation pass: columns of numpy arrays, what they mean, and the worst of them."""

from __future__ import annotations

from collections.abc import Mapping
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
