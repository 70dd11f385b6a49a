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
        KeyError, ValueError: an array is absent, or has another shape.
    """
    means, stds = (np.asarray(arrays[name], np.float64) for name in ("sample_mean", "sample_std"))
    if means.ndim != 2 or means.shape != stds.shape:
        raise ValueError(f"{means.shape} means, {stds.shape} deviations")
    # Files are often in the order of their classes, which says nothing of time.
    columns: list[ColumnSketch] = [
        build_number_sketch(f"input.{name}_{channel}", "inputs", values[:, channel], is_ordered=False)
        for name, values in (("mean", means), ("std", stds))
        for channel in range(means.shape[1])
    ]
    confidence = np.asarray(arrays["sample_confidence"], np.float64)
    columns.append(build_number_sketch("output.confidence", "outputs", confidence, is_ordered=False))
    names = labels or [str(number) for number in range(len(arrays["class_counts"]))]
    counts = {name: int(count) for name, count in zip(names, arrays["class_counts"], strict=True) if count > 0}
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
