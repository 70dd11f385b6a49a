"""Report of a segmentation model, which predicts a class for each pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.evaluate.report_wording import Judged, entry, in_percent, named, percent
from mlscale.evaluate.sample_collector import Gathered
from mlscale.report import Bars, Heading, Rows, Series, Table
from mlscale.stats.bootstrap import Bootstrap, bootstrap

Floats = NDArray[np.float64]
_MOST = 50  # rows of the table of classes; the JSON result has all


def judge(gathered: Gathered, seed: int = 0) -> Judged:
    """Return mean IoU and pixel accuracy; IoU, recall and precision of each class. The bootstrap draws images, not
    pixels: those of one image are alike."""
    columns, about = gathered.columns, gathered.about
    found, n, k = figures_of(columns, seed), len(gathered), columns["hit"].shape[1]
    iou = [found[3 + place] for place in range(k)]
    recall, precision = ([found[3 + k * (1 + part) + place] for place in range(k)] for part in range(2))
    images = [int(((columns["true"][:, place]) > 0).sum()) for place in range(k)]
    # IoU is NaN for a class that is neither in the images nor predicted.
    known = [place for place in range(k) if iou[place].value == iou[place].value]
    order = sorted(known, key=lambda place: iou[place].value)
    rows = [
        (about.label(p), f"{images[p]:,}", in_percent(iou[p]), in_percent(precision[p]), in_percent(recall[p]))
        for p in order[:_MOST]
    ]
    counts = np.histogram(columns["iou"][np.isfinite(columns["iou"])], np.linspace(0, 1, 11))[0]
    worst = order[0] if order else 0
    return Judged(
        metrics={
            **named("miou", found[0]),
            **named("pixel_accuracy", found[1]),
            **named("loss", found[2]),
            "samples": n,
        },
        headline=f"mean IoU {in_percent(found[0])}, pixel accuracy {in_percent(found[1])}, of {n:,} images",
        remarks=[f"the worst class is {about.label(worst)}, IoU {percent(iou[worst].value)}"] if len(order) > 1 else [],
        figures=[
            Heading("Classes", "Worst first, by IoU over all pixels; intervals by drawing images."),
            Table(f"{len(order)} classes", ("class", "images", "IoU", "precision", "recall"), rows),
            Rows("IoU of the classes", [(about.label(p), 100 * iou[p].value) for p in order[:12]], "%", 100.0),
            Bars(
                "IoU of the images", [f"{edge / 10:.1f}" for edge in range(10)],
                [Series("images", [float(count) for count in counts])], "mean IoU from", "images",
            ),
        ],
        details={
            "classes": [
                {"class": about.label(p), "images": images[p], "iou": entry(iou[p]), "precision": entry(precision[p]),
                 "recall": entry(recall[p])}
                for p in order
            ]
        },
    )  # fmt: skip


def figures_of(columns: dict[str, NDArray[np.generic]], seed: int = 0) -> Bootstrap:
    """Return mean IoU, pixel accuracy, loss; then IoU, recall and precision of each class, (3 + 3k,)."""
    hit, told, true = (np.asarray(columns[name], np.float64) for name in ("hit", "predicted", "true"))
    k = hit.shape[1]
    rows = np.concatenate(
        [hit, told, true, np.asarray(columns["loss"], np.float64)[:, None], np.ones((len(hit), 1))], 1
    )

    def statistic(sums: Floats) -> Floats:
        hits, predicted, truth = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k]
        union = predicted + truth - hits
        iou, recall, precision = (
            np.where(whole > 0, hits / np.maximum(whole, 1), np.nan) for whole in (union, truth, predicted)
        )
        # Over the classes of this draw: one that none of the drawn images has must not count as 0.
        there = union > 0
        mean = np.where(there, np.nan_to_num(iou), 0).sum(1) / np.maximum(there.sum(1), 1)
        accuracy = hits.sum(1) / np.maximum(truth.sum(1), 1)
        loss = sums[:, 3 * k] / sums[:, -1]
        return np.concatenate([mean[:, None], accuracy[:, None], loss[:, None], iou, recall, precision], 1)

    return bootstrap(rows, statistic, seed=seed)
