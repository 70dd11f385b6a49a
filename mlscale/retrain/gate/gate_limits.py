"""The limits of the promotion gate, and what a person has decided about earlier data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.task_types.task_type import AnswerNames, TaskType

_MOST_NAMES = 20
# Names that need no quotes in a list of Hydra's grammar.
_PLAIN_NAME = re.compile(r"[A-Za-z_][\w-]*|\d+")


@dataclass(frozen=True)
class GateLimits:
    """The limits of the gate.

    Attributes:
        alpha: the highest probability of promoting a challenger that is not better.
        max_drop: the highest loss on the original data, at confidence 1 - alpha: absolute where the metric is a share,
            else relative to the champion's.
        max_latency_ratio: the highest CPU time of one sample relative to the champion's, at 95 % confidence.
        max_class_drop: the highest loss of a class or a slice on the original data.
        tolerance: a score has changed if it differs by more: absolute for shares, else in multiples of the champion's
            mean; a right prediction that became wrong always has.
        relabelled: names of classes whose meaning has changed: the original data of them does not count.
        old: compare on the original data.
        min_kappa: Cohen's kappa of the champion and the window's labels; below it nothing contradicts wrong labels,
            and a person decides. None for never.
    """

    alpha: float
    max_drop: float
    max_latency_ratio: float
    max_class_drop: float = 0.1
    tolerance: float = 0.1
    relabelled: tuple[str, ...] = ()
    old: bool = True
    min_kappa: float | None = 0.2


def find_relabelled_numbers(task_type: TaskType, names: AnswerNames, relabelled: Sequence[str]) -> NDArray[np.int64]:
    """Return the numbers of the classes that a person has declared relabelled.

    Raises:
        MLScaleError: the model does not have one of them, has no classes, or has no others.
    """
    known = task_type.list_class_names(names)
    unknown = [name for name in relabelled if name not in known]
    # Before the list of known classes: with fewer than two, no name in it could be the fix.
    if unknown and len(known) < 2:
        raise MLScaleError(
            f"a model of {task_type.name} has no classes to leave out",
            where="gate.relabelled",
            why="the original data counts as a whole",
            fix="gate.old=false",
        )
    if unknown:
        shown = ", ".join(known[:_MOST_NAMES]) + (", …" if len(known) > _MOST_NAMES else "")
        raise MLScaleError(
            f"unknown class '{unknown[0]}'",
            where="gate.relabelled",
            why=f"the model's classes are {shown}",
            fix=f"gate.relabelled={format_name_list(known[:2])}, with the classes whose meaning has changed",
        )
    numbers = np.array(sorted({known.index(name) for name in relabelled}), np.int64)
    if len(numbers) and len(numbers) == len(known):
        raise MLScaleError(
            "all classes are declared relabelled",
            where="gate.relabelled",
            why="nothing of the original data is left to compare on",
            fix="gate.old=false",
        )
    return numbers


def format_name_list(names: Sequence[str]) -> str:
    """Return a list of names as it is typed on the command line."""
    # Hydra reads true, false and null as values, in any case, although a class may be called so.
    words = (
        name if _PLAIN_NAME.fullmatch(name) and name.lower() not in ("true", "false", "null") else f'"{name}"'
        for name in names
    )
    typed = f"[{','.join(words)}]"
    # The double quotes are Hydra's: without single ones around them the shell would remove them.
    return f"'{typed}'" if '"' in typed else typed
