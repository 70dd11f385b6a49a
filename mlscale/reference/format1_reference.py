"""Reference profiles of format 1, of images and classes alone, as columns and a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.reference.column_sketch import CategorySketch, ColumnSketch, build_number_sketch
from mlscale.reference.score_reference import ScoreReference


def convert_columns(arrays: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> tuple[ColumnSketch, ...]:
    """Return `input.mean_<channel>`, `input.std_<channel>`, `output.confidence` and `output.label`.

    Raises:
        KeyError, TypeError, ValueError: an array is absent, or has another shape or type.
    """
    means, stds, confidence = (
        _convert_to_floats(arrays[name]) for name in ("sample_mean", "sample_std", "sample_confidence")
    )
    if means.ndim != 2 or means.shape != stds.shape or confidence.shape != means.shape[:1] or not confidence.size:
        raise ValueError(f"{means.shape} means, {stds.shape} deviations, {confidence.shape} confidences")
    # Files are often in the order of their classes, which says nothing of time.
    columns: list[ColumnSketch] = [
        build_number_sketch(f"input.{name}_{channel}", "inputs", values[:, channel], is_ordered=False)
        for name, values in (("mean", means), ("std", stds))
        for channel in range(means.shape[1])
    ]
    columns.append(build_number_sketch("output.confidence", "outputs", confidence, is_ordered=False))
    stored = arrays["class_counts"]
    names = labels or [str(number) for number in range(len(stored))]
    if stored.shape != (len(names),) or stored.dtype.kind not in "iu" or stored.min() < 0 or not stored.sum():
        raise ValueError(f"{stored.dtype} {stored.shape} class counts of {len(names)} classes")
    # Classes that were never predicted are left out: the first event of one shows as a new category.
    counts = {name: int(count) for name, count in zip(names, stored, strict=True) if count > 0}
    total = sum(counts.values())
    columns.append(CategorySketch("output.label", "outputs", total, 0, counts, 0, float(total)))
    return tuple(columns)


def convert_score(about: Mapping[str, Any]) -> ScoreReference:
    """Return the accuracy of a profile of format 1."""
    return ScoreReference(
        name="accuracy",
        higher_is_better=True,
        unit="",
        is_share=True,
        is_binary=True,
        mean=float(about["accuracy"]),
        samples=int(about["samples"]),
        # Format 1 has stored the mean alone.
        values=np.zeros(0),
    )


def _convert_to_floats(array: NDArray[Any]) -> NDArray[np.float64]:
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise TypeError(f"an array of {array.dtype}, {array.ndim} axes")
    return np.asarray(array, np.float64)
