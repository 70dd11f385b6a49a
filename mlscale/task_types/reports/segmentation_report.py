"""Report of a segmentation model, which predicts a class for each pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.report import BarPlot, Heading, HorizontalBarPlot, Series, TableBlock
from mlscale.stats.bootstrap import Bootstrap, bootstrap_intervals
from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.report_wording import (
    EvaluationReport,
    expand_interval,
    format_share,
    format_share_interval,
    serialize_interval,
)

Floats = NDArray[np.float64]
_MAX_TABLE_ROWS = 50  # rows of the table of classes; the JSON result has all


def build_segmentation_report(gathered: CollectedSamples, seed: int = 0) -> EvaluationReport:
    """Return mean IoU and pixel accuracy; IoU, recall and precision of each class. The bootstrap draws images, not
    pixels: those of one image are alike."""
    columns, task_info = gathered.columns, gathered.task_info
    intervals, n, k = compute_segmentation_metrics(columns, seed), len(gathered), columns["hit"].shape[1]
    iou = [intervals[3 + index] for index in range(k)]
    recall, precision = ([intervals[3 + k * (1 + part) + index] for index in range(k)] for part in range(2))
    images = [int(((columns["true"][:, index]) > 0).sum()) for index in range(k)]
    # IoU is NaN for a class that is neither in the images nor predicted.
    known = [index for index in range(k) if iou[index].value == iou[index].value]
    order = sorted(known, key=lambda index: iou[index].value)
    rows = [
        (
            task_info.get_class_name(p),
            f"{images[p]:,}",
            format_share_interval(iou[p]),
            format_share_interval(precision[p]),
            format_share_interval(recall[p]),
        )
        for p in order[:_MAX_TABLE_ROWS]
    ]
    counts = np.histogram(columns["iou"][np.isfinite(columns["iou"])], np.linspace(0, 1, 11))[0]
    worst = order[0] if order else 0
    return EvaluationReport(
        metrics={
            **expand_interval("miou", intervals[0]),
            **expand_interval("pixel_accuracy", intervals[1]),
            **expand_interval("loss", intervals[2]),
            "samples": n,
        },
        headline=f"mean IoU {format_share_interval(intervals[0])}, "
        f"pixel accuracy {format_share_interval(intervals[1])}, of {n:,} images",
        remarks=[f"the worst class is {task_info.get_class_name(worst)}, IoU {format_share(iou[worst].value)}"]
        if len(order) > 1
        else [],
        blocks=[
            Heading("Classes", "Worst first, by IoU over all pixels; intervals by drawing images."),
            TableBlock(f"{len(order)} classes", ("class", "images", "IoU", "precision", "recall"), rows),
            HorizontalBarPlot(
                "IoU of the classes", [(task_info.get_class_name(p), 100 * iou[p].value) for p in order[:12]],
                "%", 100.0,
            ),
            BarPlot(
                "IoU of the images", [f"{edge / 10:.1f}" for edge in range(10)],
                [Series("images", [float(count) for count in counts])], "mean IoU from", "images",
            ),
        ],
        details={
            "classes": [
                {"class": task_info.get_class_name(p), "images": images[p], "iou": serialize_interval(iou[p]),
                 "precision": serialize_interval(precision[p]), "recall": serialize_interval(recall[p])}
                for p in order
            ]
        },
    )  # fmt: skip


def compute_segmentation_metrics(columns: dict[str, NDArray[np.generic]], seed: int = 0) -> Bootstrap:
    """Return mean IoU, pixel accuracy, loss; then IoU, recall and precision of each class, (3 + 3k,)."""
    hit, predicted_pixels, true = (np.asarray(columns[name], np.float64) for name in ("hit", "predicted", "true"))
    k = hit.shape[1]
    rows = np.concatenate(
        [hit, predicted_pixels, true, np.asarray(columns["loss"], np.float64)[:, None], np.ones((len(hit), 1))], 1
    )

    def compute_iou_metrics(sums: Floats) -> Floats:
        hits, predicted, truth = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k]
        union = predicted + truth - hits
        iou, recall, precision = (
            np.where(whole > 0, hits / np.maximum(whole, 1), np.nan) for whole in (union, truth, predicted)
        )
        # Over the classes of this draw: one that none of the drawn images has must not count as 0.
        present = union > 0
        mean = np.where(present, np.nan_to_num(iou), 0).sum(1) / np.maximum(present.sum(1), 1)
        accuracy = hits.sum(1) / np.maximum(truth.sum(1), 1)
        loss = sums[:, 3 * k] / sums[:, -1]
        return np.concatenate([mean[:, None], accuracy[:, None], loss[:, None], iou, recall, precision], 1)

    return bootstrap_intervals(rows, compute_iou_metrics, seed=seed)
