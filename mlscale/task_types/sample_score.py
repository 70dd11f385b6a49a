"""The score of a sample: one number that says how good a prediction is, and how the mean of many is reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.stats.bootstrap import bootstrap_intervals
from mlscale.stats.intervals import Interval, compute_wilson_interval


@dataclass(frozen=True)
class SampleScore:
    """The definition of the score of a sample.

    Attributes:
        name: of its mean over samples.
        higher_is_better: true if a higher value is better.
        unit: of a value; 'target' for the unit of what is predicted, '' for a number without a unit.
        is_share: true if it is a share, shown in percent.
        is_binary: true if each sample has 0 or 1: the mean has Wilson's interval then, else that of a bootstrap.
    """

    name: str
    higher_is_better: bool
    unit: str = ""
    is_share: bool = False
    is_binary: bool = False

    def estimate_mean(self, values: NDArray[Any], seed: int = 0) -> Interval:
        """Return the mean of the scores of n samples with its interval; NaN values, of samples without a score, do not
        count.

        Args:
            values: (n,).
            seed: of the bootstrap.
        """
        known = np.asarray(values, np.float64)
        known = known[~np.isnan(known)]
        if not len(known):
            return Interval(float("nan"), float("nan"), float("nan"))
        if self.is_binary:
            return compute_wilson_interval(int(known.sum()), len(known))
        rows = np.stack([known, np.ones(len(known))], 1)
        return bootstrap_intervals(rows, lambda sums: sums[:, :1] / sums[:, 1:], seed=seed)[0]

    def format_mean(self, mean: Interval) -> str:
        """Return the mean with its interval as text, such as 'accuracy 98.3 % [95.1, 99.4]'."""
        from mlscale.task_types.report_wording import format_number_interval, format_share_interval

        shown = format_share_interval(mean) if self.is_share else format_number_interval(mean)
        return f"{self.name.replace('_', ' ')} {shown}"
