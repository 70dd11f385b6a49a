"""Create the report of a task type, with slices and the worst errors."""

from __future__ import annotations

from mlscale.evaluate import slices
from mlscale.evaluate import worst_samples as worst
from mlscale.evaluate.evaluated_samples import EvaluatedSamples
from mlscale.task_types.report_wording import EvaluationReport


def build_task_report(
    gathered: EvaluatedSamples, columns: slices.SliceColumns | None = None, seed: int = 0
) -> EvaluationReport:
    """Return the complete report of an evaluation pass.

    Args:
        gathered: the samples, at least one.
        columns: columns to slice by.
        seed: of the bootstrap and of other random draws.
    """
    task_type = gathered.task_type
    report = task_type.build_report(gathered, seed)
    parts = [report]
    if columns:
        good, share, metric_name = task_type.select_slice_metric(gathered.columns)
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
