"""Samples in memory by number: the interface of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class SplitRows(Protocol):
    """A split: samples by number.

    Attributes:
        version: digest of what it holds.
        bad: what is wrong with a sample that cannot be used, by its number.
        labels: what is predicted of each, (n,) or (n, …); None where it follows from x.
    """

    @property
    def version(self) -> str: ...
    @property
    def bad(self) -> Mapping[int, str]: ...
    @property
    def labels(self) -> Array | None: ...
    def __len__(self) -> int: ...
    def get_key(self, sample: int) -> str:
        """Return the name of a sample, unique in its split."""

    def take_samples(self, samples: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return x (n, …) and y (n,) or (n, …) of samples: new arrays, not views."""


def compute_split_version(splits: Mapping[str, SplitRows]) -> str:
    """Return the digest of all splits."""
    # With the names of the splits: train and val exchanged are other data.
    content = "|".join(f"{split}={rows.version}" for split, rows in splits.items())
    return hashlib.sha256(content.encode()).hexdigest()[:16]
