"""Samples on their way from a request to the graph: tensors by name, with a row or several for each sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples


class PackedSamples(NamedTuple):
    """Samples as a graph takes them.

    Attributes:
        tensors: by the names of the graph's inputs, (rows, …) each.
        size: the number of samples.
        rows: of each tensor.
        counts: the rows of each sample, int64 (size,); None where each has one.
        facts: what the tensors do not show of the raw samples, as in `EncodedSamples`; None where there are none.
    """

    tensors: Mapping[str, NDArray[Any]]
    size: int
    rows: int
    counts: NDArray[np.int64] | None = None
    facts: Mapping[str, NDArray[np.float64]] | None = None

    def as_encoded(self) -> EncodedSamples:
        """Return the samples as an encoder gives them."""
        return EncodedSamples(self.tensors, {}, self.counts, self.facts)


NO_SAMPLES = PackedSamples({}, 0, 0)


def create_packed_samples(
    tensors: Mapping[str, NDArray[Any]],
    counts: NDArray[np.int64] | None = None,
    facts: Mapping[str, NDArray[np.float64]] | None = None,
) -> PackedSamples:
    """Return samples of these tensors; of a row each unless `counts` states their rows."""
    rows = len(next(iter(tensors.values())))
    return PackedSamples(tensors, rows if counts is None else len(counts), rows, counts, facts)


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
    return create_packed_samples(tensors, counts, _join_facts(parts))


def _join_facts(parts: Sequence[PackedSamples]) -> dict[str, NDArray[np.float64]] | None:
    """Return the facts of all parts, NaN for those of parts that have none."""
    names = dict.fromkeys(name for part in parts for name in part.facts or ())
    if not names:
        return None
    return {
        name: np.concatenate([(part.facts or {}).get(name, np.full(part.size, np.nan)) for part in parts])
        for name in names
    }
