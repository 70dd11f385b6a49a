"""Weights of samples, from a CSV file or from a member of each sample."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError


def is_weights_file(weights: str) -> bool:
    """Return True if the text names a CSV file, and not a member of the samples."""
    return weights.endswith(".csv") or os.sep in weights or Path(weights).is_file()


def read_weights_file(path: str, keys: Sequence[str]) -> NDArray[np.float64]:
    """Return the weight of each key, float64 (n,). A first line without a number is a heading.

    Raises:
        MLScaleError: the file cannot be read, a line is not `key,weight`, or a sample has no line.
    """
    try:
        # newline="" leaves line ends to csv, which needs them inside quotes.
        with open(Path(path).expanduser(), newline="", encoding="utf-8") as stream:
            lines = [(number, line) for number, line in enumerate(csv.reader(stream), 1) if line]
    except (OSError, UnicodeDecodeError) as error:
        raise MLScaleError(
            f"the weights {path!r} cannot be read",
            where="data.weights",
            why=getattr(error, "strerror", None) or str(error),
            fix="data.weights=<a CSV file of key,weight lines>",
        ) from error
    weights_by_key: dict[str, float] = {}
    for number, line in lines:
        try:
            key, weight = line
            weights_by_key[key.strip()] = float(weight)
        except ValueError as error:
            # The heading.
            if number == 1:
                continue
            raise MLScaleError(
                f"line {number} of {path!r} is not key,weight",
                where="data.weights",
                why=f"it is {','.join(line)!r}",
                fix=f"write `{keys[0]},1.0`",
            ) from error
    missing = [key for key in keys if key not in weights_by_key]
    if missing:
        raise MLScaleError(
            f"{len(missing)} of {len(keys)} training samples have no weight",
            where="data.weights",
            why=f"{path} has no line for {missing[0]!r}"
            + (
                f"; its first key is {next(iter(weights_by_key))!r}"
                if weights_by_key
                else "; it holds no weight at all"
            ),
            fix="write a line for every sample, under the keys that batches show; 0 for one that is never drawn",
        )
    return check_weights(np.array([weights_by_key[key] for key in keys], np.float64), lambda sample: keys[sample])


def parse_weight_members(contents: Sequence[bytes], part: str, key: Callable[[int], str]) -> NDArray[np.float64]:
    """Return the weight of each sample, float64 (n,), from members that hold a number as text.

    Args:
        contents: of the members.
        part: what a member is called in messages.
        key: the name of a sample.

    Raises:
        MLScaleError: a member is not a number.
    """
    weights = np.empty(len(contents), np.float64)
    for sample, content in enumerate(contents):
        try:
            # float() reads bytes too, and ignores white space around the number.
            weights[sample] = float(content)
        except ValueError as error:
            raise MLScaleError(
                f"the weight of sample {key(sample)} is not a number",
                where="data.weights",
                why=f"its {part} begins {content[:40]!r}",
                fix="write `2.5`, or another number as text",
            ) from error
    return check_weights(weights, key)


def check_weights(weights: NDArray[np.float64], key: Callable[[int], str]) -> NDArray[np.float64]:
    """Return the weights, if samples can be drawn by them.

    Raises:
        MLScaleError: one is negative or not finite, or all are 0.
    """
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong) or not weights.any():
        raise MLScaleError(
            "no sample has a weight above 0"
            if not len(wrong)
            else f"the weight of sample {key(int(wrong[0]))} is {weights[wrong[0]]:g}",
            where="data.weights",
            why="a weight is a number from 0, and sets how often a sample is drawn relative to the others",
            fix="give samples that are to be drawn a weight above 0",
        )
    # `Weighted` cumulates the weights, and a sum of finite numbers can overflow.
    if not math.isfinite(float(weights.sum())):
        raise MLScaleError("the weights add up to infinity", where="data.weights", fix="divide all by the largest")
    return weights
