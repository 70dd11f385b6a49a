"""Checks that logits and labels fit the task's number of classes, and weights of classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mlscale.errors import MLScaleError


def check_smoothing(label_smoothing: float) -> None:
    """Refuse what is not a share when a task is built: torch refuses it at the first batch, and ignores a negative one.

    Raises:
        ValueError: it is below 0 or above 1.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be a share, from 0 to 1. It is {label_smoothing}")


def check_logits(logits: int, classes: int | None) -> None:
    """Check that the model returns a logit for each class.

    Raises:
        MLScaleError: it returns another number of them, or data of a user's own does not give the number of classes.
    """
    if logits != classes:
        known = "no number of" if classes is None else classes
        refused = MLScaleError(
            f"the model gives {logits} logits and the task has {known} classes",
            where="model.num_classes, task.num_classes",
            # Data of a user's own report no classes: the model's are typed then, and the task's are to be.
            fix=f"task.num_classes={logits}" if classes is None else f"model.num_classes={classes}",
        )
        refused.unbuilt = True  # found at the first batch
        raise refused


def check_labels(y: Tensor, classes: int) -> None:
    """Check that all labels are class numbers.

    Raises:
        MLScaleError: one is not; the message has both counts.
    """
    wrong = y[(y < 0) | (y >= classes)]
    if not wrong.numel():
        return
    label = int(wrong[0])
    count = label + 1
    raise MLScaleError(
        f"a label is {label}, and the task has {classes} classes (labels 0 to {classes - 1})",
        where="task.num_classes",
        why="the class count of the data and of the task disagree",
        fix=f"task.num_classes={count} model.num_classes={count}" if label > 0 else "number the classes from 0",
    )


def compute_class_weights(
    weights: str | Sequence[float] | None, counts: Sequence[int] | None, classes: int
) -> Tensor | None:
    """Return the weight of each class in the training loss, float32 (classes,); None for none.

    Args:
        weights: 'balanced', the weights themselves, or None.
        counts: training samples (of masks: pixels) of each class, for 'balanced': then class c weighs
            n / (classes · counts[c]), as scikit-learn has it, so that the weights of all samples add up to n.
        classes: how many there are.

    Raises:
        MLScaleError: another word or number of weights, a negative one, all are 0, or the counts are not known.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "balanced":
            raise _make_class_weights_error(f"task.class_weights is {weights!r}", "the word is balanced")
        if counts is None or len(counts) != classes or not any(counts):
            raise _make_class_weights_error(
                "task.class_weights=balanced needs the samples of each class",
                "the data does not count them",
                fix="task.class_weights=[…], one for each class, or task.class_weights=null",
            )
        # A class that never occurs has weight 0, and does not count as a class: its weight would be infinite.
        present = [count for count in counts if count]
        return torch.tensor([sum(present) / (len(present) * count) if count else 0.0 for count in counts])
    values = [float(weight) for weight in weights]
    if len(values) != classes:
        raise _make_class_weights_error(f"task.class_weights has {len(values)} numbers", f"there are {classes} classes")
    if not all(0 <= value < float("inf") for value in values) or not any(values):
        raise _make_class_weights_error(
            f"task.class_weights is {values}", "they are finite numbers from 0, and not all 0"
        )
    return torch.tensor(values)


def _make_class_weights_error(what: str, why: str, fix: str = "task.class_weights=balanced, or null") -> MLScaleError:
    return MLScaleError(what, where="task.class_weights", why=why, fix=fix)
