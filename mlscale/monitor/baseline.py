"""The baseline that production is compared with: a servable's reference profile, a sketch of each column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import compute_sha256
from mlscale.errors import MLScaleError
from mlscale.export.reference_profile import ReferenceProfile
from mlscale.export.servable import DOCUMENT, REFERENCE, read_document
from mlscale.reference.column_sketch import CategorySketch, ColumnSketch, build_number_sketch

_GRID = 1e-4  # of a confidence: another CPU computes the last digits differently, and 0.9999999 is as sure as 1


@dataclass(frozen=True, eq=False)
class Baseline:
    """The normal inputs and predictions of a version of a model: c channels, k classes.

    Attributes:
        model: its name, under which its events are stored.
        version: of the events that are compared with it, such as `resnet:v7`.
        labels: names of the classes by number.
        picture: True if inputs are pixels: then a channel's mean is its brightness.
        input_mean, input_std: of each channel of m samples, in the units of the raw input, float32 (c, m), in the
            order of the data.
        confidence: the largest probability, float32 (m,).
        class_counts: the number of predictions of each class, int64 (k,).
        accuracy: on `samples` samples.
    """

    model: str
    version: str
    labels: tuple[str, ...] = field(repr=False)
    picture: bool
    input_mean: NDArray[np.float32] = field(repr=False)
    input_std: NDArray[np.float32] = field(repr=False)
    confidence: NDArray[np.float32] = field(repr=False)
    class_counts: NDArray[np.int64] = field(repr=False)
    accuracy: float
    samples: int

    @property
    def channels(self) -> int:
        return len(self.input_mean)

    @cached_property
    def sketches(self) -> tuple[ColumnSketch, ...]:
        """The sketches of the columns."""
        return build_baseline_sketches(self)


def read_baseline(folder: Path, *, model: str, version: str) -> Baseline:
    """Return the baseline of the servable in `folder`. Needs numpy only: the model itself is not loaded.

    Raises:
        MLScaleError: the folder is not a servable, or its profile is absent, corrupt, altered, or of another model.
    """
    document = read_document(folder)
    where = str(folder / REFERENCE)
    try:
        files = {str(name): str(entry["sha256"]) for name, entry in document["files"].items()}
        labels = tuple(str(label) for label in document["labels"])
        shape, dtype = list(document["inputs"][0]["shape"]), document["inputs"][0]["dtype"]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise MLScaleError(
            f"{DOCUMENT} is corrupt",
            where=str(folder / DOCUMENT),
            why=repr(error),
            fix="mlscale export makes the servable again",
        ) from error
    # Before the arrays are read: an altered profile must not decide what counts as normal.
    _check_as_exported(folder, files)
    reference = ReferenceProfile.load_profile(folder / REFERENCE)
    try:
        means, stds, confidence, counts = _extract_columns(reference.arrays, len(labels))
        accuracy, samples = float(reference.about["accuracy"]), int(reference.about["samples"])
    except (KeyError, TypeError, ValueError) as error:
        raise MLScaleError(
            "the reference profile is not one of this model",
            where=where,
            why=f"{type(error).__name__}: {error}",
            fix="export it again: mlscale export <run>",
        ) from error
    # uint8 (n, c, h, w): only then do 'brightness' and 'contrast' describe a channel.
    picture = dtype == "uint8" and len(shape) == 4
    return Baseline(model, version, labels, picture, means, stds, confidence, counts, accuracy, samples)


def _check_as_exported(folder: Path, files: Mapping[str, str]) -> None:
    """Compare the profile's files with the digests in the servable's document.

    Raises:
        MLScaleError: they differ.
    """
    names = [name for name in files if name.startswith(f"{REFERENCE}/")]
    # Without any file of a profile the name of its folder fails the check below, with the same message.
    for name in names or [f"{REFERENCE}/"]:
        path = folder / name
        # A document from elsewhere could name files outside the folder.
        inside = path.resolve().is_relative_to(folder.resolve())
        if not (inside and path.is_file() and compute_sha256(path) == files.get(name)):
            raise MLScaleError(
                "the reference profile is corrupt or altered",
                where=str(path),
                why=f"it is not what {DOCUMENT} has the digest of",
                fix="export it again: mlscale export <run>",
            )


def _extract_columns(arrays: Mapping[str, NDArray[Any]], classes: int) -> tuple[NDArray[Any], ...]:
    """Return means and deviations (c, m), confidence (m,), and class counts (k,).

    Raises:
        KeyError, TypeError, ValueError: an array is absent, or has another shape or type than a profile.
    """
    # Channels first: each of them is a column of its own in the comparison.
    means, stds = (_convert_to_floats(arrays[name]).T for name in ("sample_mean", "sample_std"))
    confidence, counts = _convert_to_floats(arrays["sample_confidence"]), arrays["class_counts"]
    if means.ndim != 2 or means.shape != stds.shape or confidence.shape != means.shape[1:] or not confidence.size:
        raise ValueError(f"{means.shape} means, {stds.shape} deviations, {confidence.shape} confidences")
    if counts.shape != (classes,) or counts.dtype.kind not in "iu" or counts.min() < 0 or not counts.sum():
        raise ValueError(f"{counts.dtype} {counts.shape} class counts of {classes} classes")
    return means, stds, confidence, counts


def _convert_to_floats(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiu" or not array.ndim:
        raise TypeError(f"an array of {array.dtype}, {array.ndim} axes")
    return np.asarray(array, np.float32)


def build_baseline_sketches(baseline: Baseline) -> tuple[ColumnSketch, ...]:
    """Return the sketches of a baseline's columns."""
    # The order of pictures is that of files, often sorted by class: it shows no dependence in time.
    is_ordered = not baseline.picture
    numbers = {
        **{f"input.mean_{channel}": values for channel, values in enumerate(baseline.input_mean)},
        **{f"input.std_{channel}": values for channel, values in enumerate(baseline.input_std)},
    }
    sketches: list[ColumnSketch] = [
        build_number_sketch(name, "inputs", values.astype(np.float64), is_ordered=is_ordered)
        for name, values in numbers.items()
    ]
    confidence = round_confidence(baseline.confidence)
    sketches.append(build_number_sketch("output.confidence", "outputs", confidence, is_ordered=is_ordered))
    # Classes that were never predicted are left out: the first event of one shows as a new category.
    counts = {
        label: int(count) for label, count in zip(baseline.labels, baseline.class_counts, strict=True) if count > 0
    }
    total = sum(counts.values())
    sketches.append(CategorySketch("output.label", "outputs", total, 0, counts, 0, float(total)))
    return tuple(sketches)


def round_confidence(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return confidences on a grid that is coarser than the differences between CPUs."""
    rounded: NDArray[np.float64] = np.round(values.astype(np.float64) / _GRID) * _GRID
    return rounded
