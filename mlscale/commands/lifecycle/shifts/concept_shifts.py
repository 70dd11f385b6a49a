"""Changes of what is right for the same inputs: two classes are swapped, or a target has another slope."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.commands.lifecycle.shifts.shift import CONCEPT, Shift
from mlscale.task_types.segmentation_type import IGNORED
from mlscale.task_types.task_type import AnswerNames

_SLOPES = (1.5, 2.0, -1.0)
_EVERYWHERE = 0.9
"""The share of images from which a class is the background of most."""
TYPES = ("classification", "multilabel", "segmentation", "regression")
"""The task types whose labels can be changed so."""


def list_concept_shifts(task_type: str, truth: NDArray[Any], names: AnswerNames) -> list[list[Shift]]:
    """Return the changes of the labels of a task type, the mildest first, each in a group of its own.

    Args:
        task_type: its name.
        truth: of training samples, as the data gives it: the most frequent classes are swapped.
        names: of classes and targets.
    """
    if task_type == "regression":
        target = names.targets[0].name if len(names.targets) == 1 else "every target"
        return [
            [
                Shift(
                    CONCEPT,
                    f"{target} is × {slope:g} for the same inputs",
                    change_truth=partial(_scale_targets, slope=slope),
                )
            ]
            for slope in _SLOPES
        ]
    is_swapped = {"classification": _swap_classes, "segmentation": _swap_classes, "multilabel": _swap_labels}[task_type]
    pair = choose_swapped_pair(task_type, truth, len(names.labels))
    swapped = tuple(names.labels[number] for number in pair)
    # With two classes none stays what it was.
    relabelled = swapped if len(names.labels) > 2 else ()
    text = f"the labels {swapped[0]} and {swapped[1]} are swapped"
    return [[Shift(CONCEPT, text, change_truth=partial(is_swapped, pair=pair), relabelled=relabelled)]]


def choose_swapped_pair(task_type: str, truth: NDArray[Any], classes: int) -> tuple[int, int]:
    """Return the numbers of the two classes whose swap changes the labels of most samples."""
    if task_type == "multilabel":
        # A sample that has both labels, or neither, does not change.
        has = truth > 0.5
        changed = (has[:, :, None] != has[:, None, :]).sum(0)
        first, second = np.unravel_index(int(changed.argmax()), changed.shape)
        return int(min(first, second)), int(max(first, second))
    if task_type == "classification":
        samples = np.bincount(truth, minlength=classes)
    else:
        present = np.stack([np.bincount(mask[mask != IGNORED], minlength=classes) > 0 for mask in truth])
        samples = present.sum(0)
        # The background is on every image; to swap it with a class would leave nothing recognisable.
        others = np.where(samples > _EVERYWHERE * len(truth), 0, samples)
        samples = others if (others > 0).sum() >= 2 else samples
    # A stable sort: of equally frequent classes the first ones, on every machine.
    first, second = sorted(np.argsort(-samples, kind="stable")[:2].tolist())
    return first, second


def _swap_classes(truth: NDArray[Any], pair: Sequence[int]) -> NDArray[Any]:
    first, second = pair
    swapped: NDArray[Any] = np.where(truth == first, second, np.where(truth == second, first, truth)).astype(
        truth.dtype
    )
    return swapped


def _swap_labels(truth: NDArray[Any], pair: Sequence[int]) -> NDArray[Any]:
    # A copy: the labels before the change are compared with those after it.
    swapped = truth.copy()
    swapped[:, list(pair)] = truth[:, list(pair)[::-1]]
    return swapped


def _scale_targets(truth: NDArray[Any], slope: float) -> NDArray[Any]:
    return np.asarray(truth * slope, truth.dtype)
