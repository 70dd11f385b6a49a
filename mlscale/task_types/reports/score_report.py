"""Report of a task type that has none of its own: the mean score and its distribution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlscale.report import BarPlot, Heading, Series
from mlscale.task_types.report_wording import EvaluationReport, expand_interval
from mlscale.task_types.sample_score import SampleScore


def build_score_report(score: SampleScore, values: NDArray[np.float64], seed: int = 0) -> EvaluationReport:
    """Return the mean score with its interval, and a histogram of the scores.

    Args:
        score: its name and direction.
        values: of the samples, (n,).
        seed: of the bootstrap.
    """
    mean, title = score.estimate_mean(values, seed), score.name.replace("_", " ").capitalize()
    counts, edges = np.histogram(values[np.isfinite(values)], 20)
    return EvaluationReport(
        metrics={**expand_interval(score.name, mean), "samples": len(values)},
        headline=f"{score.format_mean(mean)}, of {len(values):,} samples",
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
