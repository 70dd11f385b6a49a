"""The confusion matrix of a classifier, and its most frequent confusions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlscale.report import ConfusionMatrixPlot, Figure, Heading, TableBlock
from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.report_wording import format_share

_MAX_MATRIX_CLASSES = 20  # classes of a confusion matrix that can still be read


def count_confusion(gathered: CollectedSamples) -> NDArray[np.int64]:
    """Return the number of samples by true and predicted class, (k, k)."""
    truth, predicted = gathered.columns["truth"], gathered.columns["predicted"]
    # Without class names, the largest number that occurs decides: classes above it are unknown here.
    k = len(gathered.task_info.labels) or int(max(truth.max(), predicted.max())) + 1
    # One bincount over cell numbers; int64, as k² may not fit the int32 of the columns.
    return np.bincount(truth.astype(np.int64) * k + predicted, minlength=k * k).reshape(k, k)


def build_confusion_blocks(gathered: CollectedSamples, confusion: NDArray[np.int64]) -> list[Figure]:
    """Return a heading, the matrix, and the table of the most frequent confusions."""
    labels = gathered.task_info.labels or [str(number) for number in range(len(confusion))]
    return [
        Heading("Confusion", "Rows are true classes, columns predicted ones."),
        _build_confusion_matrix(confusion, labels),
        _build_confusion_table(confusion, labels),
    ]


def _build_confusion_matrix(confusion: NDArray[np.int64], labels: Sequence[str]) -> ConfusionMatrixPlot:
    """Return the matrix of all classes, or of those that are confused most."""
    k = len(confusion)
    if k <= _MAX_MATRIX_CLASSES:
        return ConfusionMatrixPlot("Confusion matrix", labels, confusion.tolist(), "predicted", "true")
    wrong = confusion * ~np.eye(k, dtype=bool)
    # Errors in both directions count; the outer sort restores the order of the class numbers.
    picked = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:_MAX_MATRIX_CLASSES])
    part = confusion[np.ix_(picked, picked)]
    title = f"The {_MAX_MATRIX_CLASSES} classes that are confused most"
    return ConfusionMatrixPlot(title, [labels[number] for number in picked], part.tolist(), "predicted", "true")


def _build_confusion_table(confusion: NDArray[np.int64], labels: Sequence[str]) -> TableBlock:
    """Return the table of the most frequent confusions, as pairs of classes."""
    wrong = confusion * ~np.eye(len(confusion), dtype=bool)
    # A stable sort: pairs of equal counts stay in the order of the classes, on every platform.
    order = np.argsort(-wrong, axis=None, kind="stable")[:12]
    pairs = [divmod(int(cell), len(confusion)) for cell in order]
    rows = [
        (
            labels[actual],
            labels[predicted],
            f"{wrong[actual, predicted]:,}",
            format_share(wrong[actual, predicted] / confusion[actual].sum()),
        )
        for actual, predicted in pairs
        if wrong[actual, predicted]
    ]
    return TableBlock("Most confused classes", ("true", "predicted", "samples", "of the class"), rows, narrow=True)
