"""The reference profile: statistics of inputs and predictions on validation data, which monitoring compares with.

Needs numpy alone. Two files: `profile.npz` with the arrays, `profile.json` with their metadata.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import read_json, write_bytes, write_json
from mlscale.contracts import expect_format
from mlscale.errors import MLScaleError

ARRAYS, ABOUT = "profile.npz", "profile.json"
MAX_KEPT_SAMPLES = 10_000
"""Largest number of samples whose own statistics are kept; evenly spread over all."""
VALUE_BINS, CONFIDENCE_BINS = 32, 20  # of values: a divisor of 256, so that each bin has equally many bytes


@dataclass(frozen=True)
class ReferenceProfile:
    """A profile of n samples in c channels and k classes, of which m ≤ 10,000 are kept one by one.

    Attributes:
        about: metadata: samples, split, data version, accuracy.
        arrays: by name,
            `sample_mean`, `sample_std` float32 (m, c): of each channel of a kept sample, in the units of the raw input;
            `sample_confidence` float32 (m,): the largest probability;
            `value_edges` float64 (c, 33), `value_counts` int64 (c, 32): histogram of all values of a channel;
            `class_counts` int64 (k,): how often each class was predicted; `label_counts` int64 (k,): how often it was
            the true class;
            `probability_mean` float64 (k,): mean probability of each class;
            `confidence_edges` float64 (21,): 0 to 1; `confidence_counts`, `confidence_correct` int64 (20,): number of
            predictions with such a confidence, and of the correct ones among them.
    """

    about: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def save_profile(self, folder: Path) -> None:
        """Write both files into `folder`, each completely or not at all; equal profiles give equal bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, **dict(self.arrays))  # type: ignore[arg-type]  # numpy's stub takes allow_pickle for one
        # The JSON file comes last: if it exists, so do the arrays.
        write_bytes(folder / ARRAYS, buffer.getvalue())
        write_json(folder / ABOUT, {"format": "mlscale/reference/1", **self.about})

    @classmethod
    def load_profile(cls, folder: Path) -> ReferenceProfile:
        """Return the profile that `save_profile` wrote.

        Raises:
            MLScaleError: a file is absent or corrupt, or of another format.
        """
        about = read_json(folder / ABOUT)
        expect_format("reference", about, str(folder / ABOUT))
        if not str(about["format"]).endswith("/1"):
            raise MLScaleError(
                "this reference profile is of format 2, which `mlscale monitor` does not compare yet",
                where=str(folder / ABOUT),
                why="it has a sketch of each column, and no statistics of channels",
                fix="mlscale evaluate <ref> shows how good the model is on labelled data",
            )
        try:
            # Without pickle: the folder may be from anyone, and a pickle executes code.
            with (folder / ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        # numpy raises any of these for a file that is cut off, depending on where it ends.
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise MLScaleError(
                f"can't read {ARRAYS}",
                where=str(folder / ARRAYS),
                why=str(error),
                fix="mlscale export makes the servable again",
            ) from error
        return cls({name: value for name, value in about.items() if name != "format"}, arrays)


class ProfileBuilder:
    """A reference profile that is collected batch by batch.

    Profiles of parts merge into that of the whole, bitwise identical except for the mean probabilities, which are sums
    of floating-point numbers in another order.

    Args:
        classes: k.
        edges: of the bins of each channel's values, float64 (c, 33); by default those of a byte, and for other values
            four standard deviations around the first batch's mean.
    """

    def __init__(self, classes: int, edges: NDArray[np.float64] | None = None) -> None:
        self.samples = 0
        self._stride = 1
        self._kept_samples: list[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        self._edges: NDArray[np.float64] = np.empty((0, 0)) if edges is None else edges
        self._values: NDArray[np.int64] = np.zeros((len(self._edges), VALUE_BINS), np.int64)
        self._predicted, self._labels = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
        self._probability = np.zeros(classes)
        self._confident, self._right = np.zeros(CONFIDENCE_BINS, np.int64), np.zeros(CONFIDENCE_BINS, np.int64)

    def add_batch(
        self,
        raw: NDArray[Any],
        probabilities: NDArray[np.float32],
        y: NDArray[np.int64],
        sample_indices: NDArray[np.int64] | None = None,
    ) -> None:
        """Count a batch.

        Args:
            raw: inputs as clients send them, (n, c, …).
            probabilities: of each class, (n, k).
            y: the right classes, (n,).
            sample_indices: indices of the samples among all, over all parts, (n,): they decide whose own statistics are
                kept. By default in the order in which they are added.
        """
        values = _flatten_channels(raw)
        if not len(self._edges):
            self._edges = compute_value_edges(raw)
            self._values = np.zeros((values.shape[1], VALUE_BINS), np.int64)
        sample_indices = np.arange(self.samples, self.samples + len(raw)) if sample_indices is None else sample_indices
        for channel, (edges, counts) in enumerate(zip(self._edges, self._values, strict=True)):
            counts += _count_values(values[:, channel].ravel(), edges)
        predicted, confidence = probabilities.argmax(-1), probabilities.max(-1)
        self._predicted += np.bincount(predicted, minlength=len(self._predicted))
        self._labels += np.bincount(y, minlength=len(self._labels))
        self._probability += probabilities.sum(0, dtype=np.float64)
        # A confidence of exactly 1 belongs to the last bin.
        bins = np.minimum((confidence * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
        self._confident += np.bincount(bins, minlength=CONFIDENCE_BINS)
        self._right += np.bincount(bins[predicted == y], minlength=CONFIDENCE_BINS)
        self._keep_samples(values, confidence, sample_indices)
        self.samples += len(raw)

    def merge_counts(self, other: ProfileBuilder) -> None:
        """Add the counts of another part of the samples.

        Raises:
            ValueError: it has other bins, or other classes.
        """
        if not other.samples:
            return
        if not len(self._edges):
            self._edges, self._values = other._edges, np.zeros_like(other._values)
        if not np.array_equal(self._edges, other._edges) or len(self._labels) != len(other._labels):
            raise ValueError("the profiles have other bins or classes")
        # Integer counts add up to the same in any order, so that ranks may merge as they finish.
        self._values = self._values + other._values
        for name in ("_predicted", "_labels", "_probability", "_confident", "_right"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.samples += other.samples
        self._kept_samples += other._kept_samples
        # Strides are powers of two: the larger one selects a subset of what both parts have kept.
        self._stride = max(self._stride, other._stride)
        self._reduce_samples()

    def _keep_samples(
        self, values: NDArray[Any], confidence: NDArray[np.float32], sample_indices: NDArray[np.int64]
    ) -> None:
        """Keep the statistics of every `stride`-th sample; the stride doubles when there are too many."""
        # By the index among all samples, not by order of arrival: ranks then keep the samples that one process would.
        rows = np.flatnonzero(sample_indices % self._stride == 0)
        picked = values[rows].astype(np.float64)
        means, stds = picked.mean(-1).astype(np.float32), picked.std(-1).astype(np.float32)
        self._kept_samples += zip(sample_indices[rows].tolist(), means, stds, confidence[rows], strict=True)
        if len(self._kept_samples) > MAX_KEPT_SAMPLES:
            self._reduce_samples()

    def _reduce_samples(self) -> None:
        while True:
            self._kept_samples = [entry for entry in self._kept_samples if entry[0] % self._stride == 0]
            if len(self._kept_samples) <= MAX_KEPT_SAMPLES:
                return
            self._stride *= 2

    def finish(self, **about: object) -> ReferenceProfile:
        """Return the profile, with the caller's metadata."""
        # Parts are merged in any order: sorted, equal samples give equal bytes.
        samples = sorted(self._kept_samples, key=lambda entry: entry[0])
        means, stds, confidence = (np.stack([entry[column] for entry in samples]) for column in (1, 2, 3))
        right, total = int(self._right.sum()), self.samples
        return ReferenceProfile(
            {"samples": total, "kept_samples": len(means), "accuracy": right / total, **about},
            {
                "sample_mean": means,
                "sample_std": stds,
                "sample_confidence": confidence,
                "value_edges": self._edges,
                "value_counts": self._values,
                "class_counts": self._predicted,
                "label_counts": self._labels,
                "probability_mean": self._probability / total,
                "confidence_edges": np.linspace(0, 1, CONFIDENCE_BINS + 1),
                "confidence_counts": self._confident,
                "confidence_correct": self._right,
            },
        )


def _count_values(values: NDArray[Any], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the counts in the bins between `edges`; values beyond them are counted in the outermost bins."""
    if values.dtype == np.uint8:  # a photograph has 150,000 values: no search for each
        counts: NDArray[np.int64] = np.bincount(values, minlength=256).reshape(VALUE_BINS, -1).sum(-1)
        return counts
    # Searching the inner edges only puts everything beyond the outer ones into the first or last bin.
    return np.bincount(np.searchsorted(edges[1:-1], values, side="right"), minlength=VALUE_BINS)


def compute_value_edges(raw: NDArray[Any]) -> NDArray[np.float64]:
    """Return the edges of each channel's bins, (c, 33), for `raw`, (n, c, …): those of a byte, or four standard
    deviations around its mean."""
    values = _flatten_channels(raw)
    if values.dtype == np.uint8:
        return np.tile(np.linspace(0, 256, VALUE_BINS + 1), (values.shape[1], 1))
    wide = values.astype(np.float64)
    return compute_spread_edges(wide.mean((0, 2)), wide.std((0, 2)))


def compute_spread_edges(mean: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return edges four standard deviations around the mean of each channel, (c, 33)."""
    # A constant channel has no deviation; bins of width 0 could not count a change of it.
    spread = np.where(std == 0, 1.0, 4 * std)
    return np.linspace(mean - spread, mean + spread, VALUE_BINS + 1, axis=-1)


def _flatten_channels(raw: NDArray[Any]) -> NDArray[Any]:
    """Return (n, c, …) as (n, c, values)."""
    return raw.reshape(len(raw), raw.shape[1] if raw.ndim > 1 else 1, math.prod(raw.shape[2:]))
