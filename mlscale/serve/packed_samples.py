"""Samples on their way from a request to the graph: tensors by name, with a row or several for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class PackedSamples(NamedTuple):
    """Samples as a graph takes them.

    Attributes:
        tensors: by the names of the graph's inputs, (rows, …) each.
        size: the number of samples.
        rows: of each tensor.
        counts: the rows of each sample, int64 (size,); None where each has one.
    """

    tensors: Mapping[str, NDArray[Any]]
    size: int
    rows: int
    counts: NDArray[np.int64] | None = None


NO_SAMPLES = PackedSamples({}, 0, 0)


def create_packed_samples(
    tensors: Mapping[str, NDArray[Any]], counts: NDArray[np.int64] | None = None
) -> PackedSamples:
    """Return samples of these tensors; of a row each unless `counts` states their rows."""
    rows = len(next(iter(tensors.values())))
    return PackedSamples(tensors, rows if counts is None else len(counts), rows, counts)


def join_samples(parts: Sequence[PackedSamples]) -> PackedSamples:
    """Return the samples of all parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    names = parts[0].tensors
    tensors = {name: np.concatenate([part.tensors[name] for part in parts]) for name in names}
    counts = None
    if any(part.counts is not None for part in parts):
        # A part without counts has a row for each of its samples.
        counts = np.concatenate(
            [np.ones(part.size, np.int64) if part.counts is None else part.counts for part in parts]
        )
    return create_packed_samples(tensors, counts)
