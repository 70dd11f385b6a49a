"""Create the report for a task's kind, with slices and the worst errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.evaluate import classification_report as classification
from mlscale.evaluate import language_report as language
from mlscale.evaluate import multilabel_report as multilabel
from mlscale.evaluate import regression_report as regression
from mlscale.evaluate import segmentation_report as segmentation
from mlscale.evaluate import slices
from mlscale.evaluate import worst_samples as worst
from mlscale.evaluate.report_wording import Judged
from mlscale.evaluate.sample_collector import Gathered

JUDGES: Mapping[str, Callable[[Gathered, int], Judged]] = {
    "classification": classification.judge,
    "multilabel": multilabel.judge,
    "segmentation": segmentation.judge,
    "regression": regression.judge,
    "language": language.judge,
}


def judge(gathered: Gathered, named: slices.Named | None = None, seed: int = 0) -> Judged:
    """Return the complete report of an evaluation pass.

    Args:
        gathered: the samples, at least one.
        named: columns to slice by.
        seed: of the bootstrap and of other random draws.
    """
    found = JUDGES[gathered.about.kind](gathered, seed)
    parts = [found]
    if named:
        good, share, figure = goodness(gathered)
        parts.append(slices.judge(named, good, share=share, figure=figure, seed=seed))
    # The headline is that of the task's own report; slices have none.
    return Judged(
        metrics={name: value for part in parts for name, value in part.metrics.items()},
        headline=found.headline,
        remarks=[remark for part in parts for remark in part.remarks],
        figures=[*found.figures, *(figure for part in parts[1:] for figure in part.figures), *worst.figures(gathered)],
        details={name: value for part in parts for name, value in part.details.items()},
    )


def goodness(gathered: Gathered) -> tuple[NDArray[Any], bool, str]:
    """Return the values by sample that slices are compared by, correct (bool) or the loss; true for the former; the
    metric's name."""
    columns, kind = gathered.columns, gathered.about.kind
    # Slices are compared by one number for each sample. Where a prediction is right or wrong that is easier to read
    # than a loss, and has an exact test.
    if kind == "classification":
        return columns["truth"] == columns["predicted"], True, "accuracy"
    if kind == "multilabel":
        return (columns["truth"] == columns["predicted"]).all(1), True, "exact_match"
    name = {"regression": "squared_error", "language": "nats_per_token"}.get(kind, "loss")
    return np.asarray(columns["loss"], np.float64), False, name
