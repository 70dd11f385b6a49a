"""Report of a task type that has none of its own: the mean score and its distribution."""

from __future__ import annotations

import numpy as np

from mlscale.report import BarPlot, Heading, Series
from mlscale.task_types.collected_samples import CollectedSamples
from mlscale.task_types.reports.report_wording import EvaluationReport, expand_interval


def build_score_report(gathered: CollectedSamples, seed: int = 0) -> EvaluationReport:
    """Return the mean score with its interval, and a histogram of the scores."""
    task_type = gathered.task_info.task_type
    score, values = task_type.score, task_type.score_samples(gathered.columns)
    mean, title = score.estimate_mean(values, seed), score.name.replace("_", " ").capitalize()
    counts, edges = np.histogram(values[np.isfinite(values)], 20)
    return EvaluationReport(
        metrics={**expand_interval(score.name, mean), "samples": len(gathered)},
        headline=f"{score.format_mean(mean)}, of {len(gathered):,} samples",
        blocks=[
            Heading(title, f"The mean is {score.format_mean(mean)}."),
            BarPlot(
                f"{title} of the samples",
                [f"{edge:.3g}" for edge in edges[:-1]],
                [Series("samples", [float(count) for count in counts])],
                f"{title.lower()} from",
                "samples",
            ),
        ],
    )
