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
_MOST_ROWS = 5000  # as stats/bootstrap.py, which would group more rows than that itself


@dataclass(frozen=True)
class Measure:
    """A metric.

    Attributes:
        name: its key in the result.
        higher: true if a higher value is better.
        share: true if it is a share, shown in percent.
    """

    name: str
    higher: bool
    share: bool = False

    @property
    def said(self) -> str:
        """The name to display."""
        words = {"mae": "MAE", "rmse": "RMSE", "miou": "mean IoU", "macro_f1": "macro F1", "f1_macro": "macro F1"}
        return words.get(self.name, self.name.replace("_", " "))


def measures(ours: Columns, theirs: Columns, kind: str) -> tuple[Floats, Statistic, list[Measure]]:
    """Return the rows to sum of both models, (n, 2c), those of `ours` first; the function from one model's sums,
    (b, c), to metrics, (b, m); and the metrics."""
    if kind == "classification":
        return _classes(ours, theirs)
    if kind == "multilabel":
        k = ours["truth"].shape[1]
        sides = [np.concatenate([_labels(each), _loss(each)], 1) for each in (ours, theirs)]
        of = [Measure("f1_macro", True, True), Measure("loss", False)]
        return np.concatenate(sides, 1), lambda sums: _macro_f1_and_loss(sums, k), of
    if kind == "segmentation":
        k = ours["hit"].shape[1]
        names = ("hit", "predicted", "true")
        sides = [
            np.concatenate([*(np.asarray(each[n], float) for n in names), _loss(each)], 1) for each in (ours, theirs)
        ]
        of = [Measure("miou", True, True), Measure("pixel_accuracy", True, True), Measure("loss", False)]
        return np.concatenate(sides, 1), lambda sums: _iou(sums, k), of
    if kind == "regression":
        sides = []
        for each in (ours, theirs):
            error = np.asarray(each["predicted"], np.float64) - each["truth"]
            sides.append(np.stack([abs(error).mean(1), (error**2).mean(1), np.ones(len(error))], 1))
        of = [Measure("rmse", False), Measure("mae", False)]
        return np.concatenate(sides, 1), _errors, of
    sides = [np.stack([np.asarray(each[n], np.float64) for n in ("nats", "tokens")], 1) for each in (ours, theirs)]
    return np.concatenate(sides, 1), _bits, [Measure("bits_per_byte", False)]


def class_counts(truth: NDArray[Any], predicted: NDArray[Any], k: int) -> Floats:
    """Return hits, support and predictions of each class, (rows, 3k), of at most 5,000 random groups of samples: with
    a thousand classes a row for each sample would need too much memory."""
    group, groups = _groups(len(truth))

    def counted(classes: NDArray[Any], where: NDArray[np.bool_]) -> Floats:
        cells = (group * k + classes)[where]
        return np.bincount(cells, minlength=groups * k).reshape(groups, k).astype(np.float64)

    every = np.ones(len(truth), bool)
    parts = (counted(truth, predicted == truth), counted(truth, every), counted(predicted, every))
    return np.concatenate(parts, 1)


def macro_f1(hits: Floats, truth: Floats, told: Floats) -> Floats:
    """Return the macro F1 of each row, over the classes that it has samples of."""
    there = truth > 0
    f1 = np.where(there, 2 * hits / np.maximum(truth + told, 1), 0)
    mean: Floats = f1.sum(1) / np.maximum(there.sum(1), 1)
    return mean


def _groups(n: int) -> tuple[NDArray[np.int64], int]:
    """Return the group of each sample and the number of groups; the same for the same `n`."""
    groups = min(n, _MOST_ROWS)
    # A fixed seed, not the caller's: both models must have the same groups, or their samples would not be paired.
    return np.random.default_rng(0).permutation(n) % groups, groups


def _classes(ours: Columns, theirs: Columns) -> tuple[Floats, Statistic, list[Measure]]:
    """Return rows, function and metrics of classifiers: macro F1, Brier score, loss."""
    truth = np.asarray(ours["truth"], np.int64)
    # Classes of either model's predictions count, too: both sides need the same columns.
    k = int(max(truth.max(), ours["predicted"].max(), theirs["predicted"].max())) + 1
    group, groups = _groups(len(truth))

    def side(each: Columns) -> Floats:
        losses = [np.bincount(group, each[name], groups)[:, None] for name in ("brier", "loss")]
        size = np.bincount(group, minlength=groups)[:, None]
        return np.concatenate([class_counts(truth, np.asarray(each["predicted"], np.int64), k), *losses, size], 1)

    def statistic(sums: Floats) -> Floats:
        f1 = macro_f1(sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k])
        return np.stack([f1, sums[:, 3 * k] / sums[:, -1], sums[:, 3 * k + 1] / sums[:, -1]], 1)

    of = [Measure("macro_f1", True, True), Measure("brier", False), Measure("loss", False)]
    return np.concatenate([side(ours), side(theirs)], 1), statistic, of


def _loss(columns: Columns) -> Floats:
    """Return the loss of each sample and a one, (n, 2): the sums give the mean."""
    return np.stack([np.asarray(columns["loss"], np.float64), np.ones(len(columns["loss"]))], 1)


def _labels(columns: Columns) -> Floats:
    truth, told = columns["truth"].astype(bool), columns["predicted"].astype(bool)
    return np.concatenate([truth & told, truth, told], 1).astype(np.float64)


def _macro_f1_and_loss(sums: Floats, k: int) -> Floats:
    # A label without samples and predictions counts 0, as in the multilabel report and in torchmetrics.
    f1 = (2 * sums[:, :k] / np.maximum(sums[:, k : 2 * k] + sums[:, 2 * k : 3 * k], 1)).mean(1)
    return np.stack([f1, sums[:, 3 * k] / sums[:, -1]], 1)


def _iou(sums: Floats, k: int) -> Floats:
    # The same formulas as in segmentation_report.py; classes that are nowhere in a draw do not count.
    hits, told, truth = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k]
    union = told + truth - hits
    mean = np.where(union > 0, hits / np.maximum(union, 1), 0).sum(1) / np.maximum((union > 0).sum(1), 1)
    accuracy = hits.sum(1) / np.maximum(truth.sum(1), 1)
    return np.stack([mean, accuracy, sums[:, 3 * k] / sums[:, -1]], 1)


def _errors(sums: Floats) -> Floats:
    # The root is taken after the mean over all samples: a mean of roots would be another metric.
    return np.stack([np.sqrt(sums[:, 1] / sums[:, 2]), sums[:, 0] / sums[:, 2]], 1)


def _bits(sums: Floats) -> Floats:
    bits: Floats = sums[:, :1] / np.maximum(sums[:, 1:2], 1) / np.log(2)
    return bits
