"""Compare models, or the same model on samples before and after a change, by the paired comparison of the task type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlscale.commands.lifecycle.key_metric import KeyMetric, measure_key_metric
from mlscale.commands.lifecycle.production_samples import LabelledSamples

if TYPE_CHECKING:
    from mlscale.export.servable import Servable
    from mlscale.retrain.gate.overall_change import OverallChange
    from mlscale.retrain.gate.paired_columns import PairedColumns

Side = tuple["Servable", LabelledSamples]
"""A model, and the samples that it predicts."""
_TOLERANCE = 0.1  # of flips, which are not shown here


@dataclass(frozen=True)
class MetricChange:
    """The change of the key metric from the first side to the second.

    Attributes:
        first, second: the metric of each.
        low: the lower end of what was gained, one-sided; negative where the second may be worse.
        p_better, p_worse: the probability of such a change where the second is not better, and where it is not worse.
    """

    first: float
    second: float
    low: float
    p_better: float
    p_worse: float


def measure_samples(servable: Servable, samples: LabelledSamples) -> tuple[KeyMetric, float]:
    """Return the key metric of a model, and its value for samples."""
    columns = _collect_columns(servable, servable, samples)
    return measure_key_metric(servable.task_type, servable.names, columns.first)


def compare_sides(first: Side, second: Side, *, alpha: float) -> MetricChange:
    """Compare two sides, whose samples have the same order: two models on the same samples, or one on samples before
    and after a change.

    Args:
        first, second: the sides.
        alpha: 1 - confidence of the lower end.
    """
    # Each side by itself: the truth of the two differs where labels have changed.
    before, after = (_collect_columns(servable, servable, samples) for servable, samples in (first, second))
    return _compare_columns(first[0], replace(before, second=after.first), alpha)


def compare_models(
    first: Servable, second: Servable, samples: LabelledSamples, *, alpha: float, without: NDArray[np.int64]
) -> MetricChange:
    """Compare two models on the same samples.

    Args:
        first, second: the models.
        samples: labelled.
        alpha: 1 - confidence of the lower end.
        without: numbers of classes that do not count.
    """
    columns = _collect_columns(first, second, samples).select_classes(without, first)
    return _compare_columns(first, columns, alpha)


def _collect_columns(first: Servable, second: Servable, samples: LabelledSamples) -> PairedColumns:
    from mlscale.retrain.gate.paired_columns import collect_paired_columns

    columns = collect_paired_columns(first, second, samples.iterate_batches())
    # Samples are those that the first model takes, and shifts that it refuses are not chosen.
    assert columns is not None
    return columns


def _compare_columns(servable: Servable, columns: PairedColumns, alpha: float) -> MetricChange:
    from mlscale.retrain.gate.overall_change import compare_overall

    def compare(side: PairedColumns) -> OverallChange:
        return compare_overall(servable.task_type, side, alpha=alpha, tolerance=_TOLERANCE)

    change = compare(columns)
    # Exchanged, the one-sided test is that of the other direction.
    worse = compare(replace(columns, first=columns.second, second=columns.first))
    return MetricChange(change.first, change.second, change.low, change.p_better, worse.p_better)
