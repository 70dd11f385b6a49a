"""Metrics of two models as functions of sums over samples, as the bootstrap and the permutation test need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.bootstrap import Statistic
from mlscale.stats.permutation_test import compute_skewed_p, run_permutation_test
from mlscale.task_types.collected_samples import Columns

Floats = NDArray[np.float64]
_MAX_GROUPS = 5000  # as stats/bootstrap.py, which would group more rows than that itself


@dataclass(frozen=True)
class MetricDefinition:
    """A metric.

    Attributes:
        name: its key in the result.
        higher_is_better: true if a higher value is better.
        is_share: true if it is a share, shown in percent.
    """

    name: str
    higher_is_better: bool
    is_share: bool = False

    @property
    def display_name(self) -> str:
        """The name to display."""
        words = {"mae": "MAE", "rmse": "RMSE", "miou": "mean IoU", "macro_f1": "macro F1", "f1_macro": "macro F1"}
        return words.get(self.name, self.name.replace("_", " "))

    def describe_difference(self, difference: float) -> str:
        """Return how far one model is from another: +1.20% of a share, 2.55% worse of any other metric.

        Args:
            difference: positive where it is better; a share of the other model's metric where that is not a share.
        """
        if self.is_share:
            return f"{difference:+.2%}"
        # A sign would be read as that of the metric: -2.55% of an error is an improvement.
        return f"{abs(difference):.2%} {'worse' if difference < 0 else 'better'}" if difference else "unchanged"


@dataclass(frozen=True)
class PairedStatistics:
    """The input of a paired test of two models.

    Attributes:
        rows: values to sum, of each sample, (n, 2c): those of the first model first, so that a draw takes both.
        statistic: from one model's sums, (b, c), to metrics, (b, m).
        metrics: their definitions.
    """

    rows: Floats
    statistic: Statistic
    metrics: Sequence[MetricDefinition]


def compute_difference_p(paired: PairedStatistics, fewest: int, seed: int) -> Floats:
    """Return the two-sided p-value of the difference of two models by each metric, (m,); NaN of a number with fewer
    samples than `fewest`."""
    first, second = np.split(paired.rows, 2, axis=1)
    p = run_permutation_test(first, second, paired.statistic, seed=seed)
    skewed = compute_skewed_p(first, second, paired.statistic, seed=seed)
    number_p = np.maximum(p, skewed) if len(first) >= fewest else np.nan
    return np.where([metric.is_share for metric in paired.metrics], p, number_p)


def count_by_class(truth: NDArray[Any], predicted: NDArray[Any], k: int) -> Floats:
    """Return hits, support and predictions of each class, (rows, 3k), of at most 5,000 random groups of samples: with
    a thousand classes a row for each sample would need too much memory."""
    group, groups = assign_groups(len(truth))

    def count_cells(classes: NDArray[Any], where: NDArray[np.bool_]) -> Floats:
        cells = (group * k + classes)[where]
        return np.bincount(cells, minlength=groups * k).reshape(groups, k).astype(np.float64)

    every = np.ones(len(truth), bool)
    parts = (count_cells(truth, predicted == truth), count_cells(truth, every), count_cells(predicted, every))
    return np.concatenate(parts, 1)


def compute_macro_f1(hits: Floats, truth: Floats, predicted: Floats) -> Floats:
    """Return the macro F1 of each row, over the classes that it has samples of."""
    present = truth > 0
    f1 = np.where(present, 2 * hits / np.maximum(truth + predicted, 1), 0)
    mean: Floats = f1.sum(1) / np.maximum(present.sum(1), 1)
    return mean


def assign_groups(n: int) -> tuple[NDArray[np.int64], int]:
    """Return the group of each sample and the number of groups; the same for the same `n`."""
    groups = min(n, _MAX_GROUPS)
    # A fixed seed, not the caller's: both models must have the same groups, or their samples would not be paired.
    return np.random.default_rng(0).permutation(n) % groups, groups


def stack_loss(columns: Columns) -> Floats:
    """Return the loss of each sample and a one, (n, 2): the sums give the mean."""
    return np.stack([np.asarray(columns["loss"], np.float64), np.ones(len(columns["loss"]))], 1)
