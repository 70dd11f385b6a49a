"""Metrics of two models as functions of sums over samples, as the bootstrap and the permutation test need them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.bootstrap import Statistic

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
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


def build_paired_statistics(
    first: Columns, second: Columns, kind: str
) -> tuple[Floats, Statistic, list[MetricDefinition]]:
    """Return the rows to sum of both models, (n, 2c), those of `ours` first; the function from one model's sums,
    (b, c), to metrics, (b, m); and the metrics."""
    if kind == "classification":
        return _build_class_statistics(first, second)
    if kind == "multilabel":
        k = first["truth"].shape[1]
        sides = [np.concatenate([_stack_label_hits(columns), _stack_loss(columns)], 1) for columns in (first, second)]
        metrics = [MetricDefinition("f1_macro", True, True), MetricDefinition("loss", False)]
        return np.concatenate(sides, 1), lambda sums: _compute_f1_and_loss(sums, k), metrics
    if kind == "segmentation":
        k = first["hit"].shape[1]
        names = ("hit", "predicted", "true")
        sides = [
            np.concatenate([*(np.asarray(columns[n], float) for n in names), _stack_loss(columns)], 1)
            for columns in (first, second)
        ]
        metrics = [
            MetricDefinition("miou", True, True),
            MetricDefinition("pixel_accuracy", True, True),
            MetricDefinition("loss", False),
        ]
        return np.concatenate(sides, 1), lambda sums: _compute_iou_and_loss(sums, k), metrics
    if kind == "regression":
        sides = []
        for columns in (first, second):
            error = np.asarray(columns["predicted"], np.float64) - columns["truth"]
            sides.append(np.stack([abs(error).mean(1), (error**2).mean(1), np.ones(len(error))], 1))
        metrics = [MetricDefinition("rmse", False), MetricDefinition("mae", False)]
        return np.concatenate(sides, 1), _compute_error_metrics, metrics
    sides = [
        np.stack([np.asarray(columns[n], np.float64) for n in ("nats", "tokens")], 1) for columns in (first, second)
    ]
    return np.concatenate(sides, 1), _compute_bits_per_byte, [MetricDefinition("bits_per_byte", False)]


def count_by_class(truth: NDArray[Any], predicted: NDArray[Any], k: int) -> Floats:
    """Return hits, support and predictions of each class, (rows, 3k), of at most 5,000 random groups of samples: with
    a thousand classes a row for each sample would need too much memory."""
    group, groups = _assign_groups(len(truth))

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


def _assign_groups(n: int) -> tuple[NDArray[np.int64], int]:
    """Return the group of each sample and the number of groups; the same for the same `n`."""
    groups = min(n, _MAX_GROUPS)
    # A fixed seed, not the caller's: both models must have the same groups, or their samples would not be paired.
    return np.random.default_rng(0).permutation(n) % groups, groups


def _build_class_statistics(first: Columns, second: Columns) -> tuple[Floats, Statistic, list[MetricDefinition]]:
    """Return rows, function and metrics of classifiers: macro F1, Brier score, loss."""
    truth = np.asarray(first["truth"], np.int64)
    # Classes of either model's predictions count, too: both sides need the same columns.
    k = int(max(truth.max(), first["predicted"].max(), second["predicted"].max())) + 1
    group, groups = _assign_groups(len(truth))

    def build_side_rows(columns: Columns) -> Floats:
        losses = [np.bincount(group, columns[name], groups)[:, None] for name in ("brier", "loss")]
        size = np.bincount(group, minlength=groups)[:, None]
        return np.concatenate([count_by_class(truth, np.asarray(columns["predicted"], np.int64), k), *losses, size], 1)

    def compute_f1_and_losses(sums: Floats) -> Floats:
        f1 = compute_macro_f1(sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k])
        return np.stack([f1, sums[:, 3 * k] / sums[:, -1], sums[:, 3 * k + 1] / sums[:, -1]], 1)

    metrics = [
        MetricDefinition("macro_f1", True, True),
        MetricDefinition("brier", False),
        MetricDefinition("loss", False),
    ]
    return np.concatenate([build_side_rows(first), build_side_rows(second)], 1), compute_f1_and_losses, metrics


def _stack_loss(columns: Columns) -> Floats:
    """Return the loss of each sample and a one, (n, 2): the sums give the mean."""
    return np.stack([np.asarray(columns["loss"], np.float64), np.ones(len(columns["loss"]))], 1)


def _stack_label_hits(columns: Columns) -> Floats:
    truth, predicted = columns["truth"].astype(bool), columns["predicted"].astype(bool)
    return np.concatenate([truth & predicted, truth, predicted], 1).astype(np.float64)


def _compute_f1_and_loss(sums: Floats, k: int) -> Floats:
    # A label without samples and predictions counts 0, as in the multilabel report and in torchmetrics.
    f1 = (2 * sums[:, :k] / np.maximum(sums[:, k : 2 * k] + sums[:, 2 * k : 3 * k], 1)).mean(1)
    return np.stack([f1, sums[:, 3 * k] / sums[:, -1]], 1)


def _compute_iou_and_loss(sums: Floats, k: int) -> Floats:
    # The same formulas as in segmentation_report.py; classes that are nowhere in a draw do not count.
    hits, predicted, truth = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k]
    union = predicted + truth - hits
    mean = np.where(union > 0, hits / np.maximum(union, 1), 0).sum(1) / np.maximum((union > 0).sum(1), 1)
    accuracy = hits.sum(1) / np.maximum(truth.sum(1), 1)
    return np.stack([mean, accuracy, sums[:, 3 * k] / sums[:, -1]], 1)


def _compute_error_metrics(sums: Floats) -> Floats:
    # The root is taken after the mean over all samples: a mean of roots would be another metric.
    return np.stack([np.sqrt(sums[:, 1] / sums[:, 2]), sums[:, 0] / sums[:, 2]], 1)


def _compute_bits_per_byte(sums: Floats) -> Floats:
    bits: Floats = sums[:, :1] / np.maximum(sums[:, 1:2], 1) / np.log(2)
    return bits
