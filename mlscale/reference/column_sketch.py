"""Bounded sketches of columns: order statistics of numbers, counts of categories, and the effective sample size.

`ScoreReference` is the score of its samples, which production is compared with once labels arrive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.autocorrelation import estimate_correlation_time

Group = Literal["inputs", "outputs"]
# 32 KiB of numbers a column at most; a rank in 4,096 is far below the smallest distance of an alert.
MAX_VALUES, MAX_CATEGORIES = 4096, 1000


@dataclass(frozen=True, eq=False)
class NumberSketch:
    """The distribution of a column of numbers.

    Attributes:
        name: such as `input.age` or `output.confidence`.
        group: inputs or outputs.
        unit: of the values; '' if none.
        samples: the number of samples, missing ones included.
        missing: the number of samples without a value.
        values: order statistics at evenly spaced ranks, the least and the greatest included, float64 (m,), sorted,
            m ≤ 4,096; all values where there are no more.
        effective: the number of independent samples that are worth as much as the known ones, at most their number.
    """

    name: str
    group: Group
    unit: str
    samples: int
    missing: int
    values: NDArray[np.float64] = field(repr=False)
    effective: float

    @property
    def known(self) -> int:
        """The number of samples with a value."""
        return self.samples - self.missing

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """The rank of each of `values` among the known samples, from 0; int64 (m,)."""
        return select_even_ranks(self.known, len(self.values))

    @cached_property
    def below(self) -> NDArray[np.float64]:
        """The share of known samples below each of `values`, float64 (m,)."""
        # Equal values share what is below the first of them.
        first = np.searchsorted(self.values, self.values, "left")
        shares: NDArray[np.float64] = self.ranks[first] / self.known
        return shares

    @cached_property
    def up_to(self) -> NDArray[np.float64]:
        """The share of known samples up to each of `values`, float64 (m,)."""
        last = np.searchsorted(self.values, self.values, "right") - 1
        shares: NDArray[np.float64] = (self.ranks[last] + 1) / self.known
        return shares

    @cached_property
    def tie_factor(self) -> float:
        """The variance of a sample's mid-rank, relative to that without ties; 0 if the column is constant."""
        return max(0.0, 1 - float(((self.up_to - self.below) ** 2).mean()))

    @cached_property
    def spread(self) -> float:
        """The standard deviation; 0 if the column is constant, NaN without a finite value."""
        finite = self.values[np.isfinite(self.values)]
        return float(finite.std()) if len(finite) else float("nan")

    @cached_property
    def median(self) -> float:
        """The median; NaN without values."""
        return float(np.median(self.values)) if len(self.values) else float("nan")


@dataclass(frozen=True, eq=False)
class CategorySketch:
    """The distribution of a column of categories.

    Attributes:
        name, group, samples, missing, effective: as of `NumberSketch`.
        counts: the number of samples of each category, of at most the 1,000 most frequent ones.
        other: the number of samples of the remaining categories.
    """

    name: str
    group: Group
    samples: int
    missing: int
    counts: Mapping[str, int] = field(repr=False)
    other: int
    effective: float

    @property
    def known(self) -> int:
        """The number of samples with a value."""
        return self.samples - self.missing


ColumnSketch = NumberSketch | CategorySketch


def build_number_sketch(
    name: str, group: Group, values: NDArray[np.floating], unit: str = "", *, is_ordered: bool = True
) -> NumberSketch:
    """Return the sketch of a column of numbers.

    Args:
        name: of the column.
        group: inputs or outputs.
        values: in the order of time, (n,); NaN where missing.
        unit: of the values.
        is_ordered: False if the order has nothing to do with time: files sorted by class look strongly
            autocorrelated, although each is a sample of its own.
    """
    known = np.asarray(values, np.float64)[~np.isnan(values)]
    ordered = np.sort(known)
    time = 1.0
    if is_ordered and len(known):
        # Ranks, so that a few outliers do not hide the autocorrelation of all others.
        time = estimate_correlation_time(np.searchsorted(ordered, known).astype(np.float64))
    selected = ordered[select_even_ranks(len(ordered), min(MAX_VALUES, len(ordered)))]
    return NumberSketch(name, group, unit, len(values), len(values) - len(known), selected, len(known) / time)


def build_category_sketch(
    name: str, group: Group, values: Sequence[str | None], *, is_ordered: bool = True
) -> CategorySketch:
    """Return the sketch of a column of categories; arguments as of `build_number_sketch`, None where missing."""
    known = [value for value in values if value is not None]
    counts = Counter(known)
    # Equal counts by name: the order of the samples must not decide which category is selected.
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    time = 1.0
    if is_ordered and known:
        index = {category: number for number, (category, _) in enumerate(ranked)}
        time = estimate_correlation_time(np.array([index[value] for value in known], np.float64))
    selected = dict(ranked[:MAX_CATEGORIES])
    other = len(known) - sum(selected.values())
    return CategorySketch(name, group, len(values), len(values) - len(known), selected, other, len(known) / time)


def select_even_ranks(known: int, count: int) -> NDArray[np.int64]:
    """Return `count` evenly spaced ranks among `known`, the first and the last included, int64 (count,)."""
    ranks: NDArray[np.int64] = np.round(np.linspace(0, known - 1, count)).astype(np.int64)
    return ranks


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
