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
from mlscale.evaluate.report_wording import EvaluationReport
from mlscale.evaluate.sample_collector import CollectedSamples

REPORT_BUILDERS: Mapping[str, Callable[[CollectedSamples, int], EvaluationReport]] = {
    "classification": classification.build_classification_report,
    "multilabel": multilabel.build_multilabel_report,
    "segmentation": segmentation.build_segmentation_report,
    "regression": regression.build_regression_report,
    "language": language.build_language_report,
}


def build_task_report(
    gathered: CollectedSamples, columns: slices.SliceColumns | None = None, seed: int = 0
) -> EvaluationReport:
    """Return the complete report of an evaluation pass.

    Args:
        gathered: the samples, at least one.
        columns: columns to slice by.
        seed: of the bootstrap and of other random draws.
    """
    report = REPORT_BUILDERS[gathered.task_info.kind](gathered, seed)
    parts = [report]
    if columns:
        good, share, metric_name = select_slice_metric(gathered)
        parts.append(slices.build_slice_report(columns, good, share=share, metric_name=metric_name, seed=seed))
    # The headline is that of the task's own report; slices have none.
    return EvaluationReport(
        metrics={name: value for part in parts for name, value in part.metrics.items()},
        headline=report.headline,
        remarks=[remark for part in parts for remark in part.remarks],
        blocks=[
            *report.blocks,
            *(metric_name for part in parts[1:] for metric_name in part.blocks),
            *worst.build_worst_blocks(gathered),
        ],
        details={name: value for part in parts for name, value in part.details.items()},
    )


def select_slice_metric(gathered: CollectedSamples) -> tuple[NDArray[Any], bool, str]:
    """Return the values by sample that slices are compared by, correct (bool) or the loss; true for the former; the
    metric's name."""
    columns, kind = gathered.columns, gathered.task_info.kind
    # Slices are compared by one number for each sample. Where a prediction is right or wrong that is easier to read
    # than a loss, and has an exact test.
    if kind == "classification":
        return columns["truth"] == columns["predicted"], True, "accuracy"
    if kind == "multilabel":
        return (columns["truth"] == columns["predicted"]).all(1), True, "exact_match"
    name = {"regression": "squared_error", "language": "nats_per_token"}.get(kind, "loss")
    return np.asarray(columns["loss"], np.float64), False, name
