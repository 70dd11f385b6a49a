"""The score of the reference's samples, which production is compared with once labels arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# 80 kB of float64 at most: the file is copied with every servable.
MAX_SCORES = 10_000


@dataclass(frozen=True, eq=False)
class ScoreReference:
    """The score of n samples.

    Attributes:
        name: of its mean, such as accuracy.
        higher_is_better: True if a higher value is better.
        unit: of a value; '' for a number without a unit.
        is_share: True if it is a share.
        is_binary: True if each sample has 0 or 1.
        mean: over the samples.
        samples: n, those with a score.
        values: of evenly spread samples, float64 (m,), m ≤ 10,000; empty where only the mean is known.
        correlation_time: the number of values that are worth an independent one.
    """

    name: str
    higher_is_better: bool
    unit: str
    is_share: bool
    is_binary: bool
    mean: float
    samples: int
    values: NDArray[np.float64] = field(repr=False)
    correlation_time: float = 1.0

    @property
    def display_name(self) -> str:
        """The name in sentences."""
        return "IoU" if self.name == "iou" else self.name.replace("_", " ")

    def to_document(self) -> dict[str, Any]:
        """Return all but the values as JSON."""
        names = ("name", "higher_is_better", "unit", "is_share", "is_binary", "mean", "samples")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def parse_document(cls, document: Mapping[str, Any], values: NDArray[Any]) -> ScoreReference:
        """Return the score of a document and its values."""
        return cls(
            str(document["name"]),
            bool(document["higher_is_better"]),
            str(document["unit"]),
            bool(document["is_share"]),
            bool(document["is_binary"]),
            float(document["mean"]),
            int(document["samples"]),
            np.asarray(values, np.float64),
        )
