"""The interface of the summary of raw samples: a column of numbers or categories for each quantity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.task_types.event_forms import SummaryColumns

__all__ = ["MAX_NUMBERS", "InputSummary", "SummaryColumns", "count_samples", "get_fact"]
MAX_NUMBERS = 1 << 18
"""The most numbers that are summarised at once: temporary arrays of that size stay in the processor's cache."""


class InputSummary(ABC):
    """From packed samples (`Encoder.pack_samples`) to columns by name.

    Attributes:
        unmeasured: columns that validation samples do not have, as these are cut in another way than a client's.
    """

    unmeasured: ClassVar[frozenset[str]] = frozenset()

    @property
    @abstractmethod
    def sample_kind(self) -> str:
        """The form of `write_samples`: json (a row), text (its bytes), or npy (an array, as numpy saves it)."""

    @abstractmethod
    def summarize_samples(self, packed: EncodedSamples) -> SummaryColumns:
        """Return the columns of n samples, none of which is bad."""

    @abstractmethod
    def write_samples(self, packed: EncodedSamples, numbers: Sequence[int]) -> list[bytes]:
        """Return the samples of these numbers as bytes, to be stored."""


def count_samples(packed: EncodedSamples) -> int:
    """Return the number of samples."""
    return len(next(iter(packed.tensors.values()))) if packed.counts is None else len(packed.counts)


def get_fact(packed: EncodedSamples, name: str, default: float | NDArray[Any]) -> NDArray[np.float64]:
    """Return a fact of the raw samples, float64 (n,); `default` where it is not known."""
    facts: Mapping[str, NDArray[np.float64]] = packed.facts or {}
    known = facts.get(name)
    values = np.broadcast_to(np.asarray(default, np.float64), (count_samples(packed),))
    return np.array(values) if known is None else np.where(np.isnan(known), values, known)
