"""The share of missing values, compared with the reference's: more of them are a problem of the data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlscale.monitor.drift.column_drift import Column, ColumnDrift
from mlscale.reference.column_sketch import ColumnSketch
from mlscale.stats.autocorrelation import estimate_correlation_time
from mlscale.stats.exceedances import compute_exceedance_p


def compare_missing_share(
    sketch: ColumnSketch, sample: Column, is_missing: NDArray[np.bool_], label: str, share: float
) -> Iterator[ColumnDrift]:
    """Yield a result where values are missing, by Fisher's exact test.

    Args:
        sketch: of the reference.
        sample: the column, (n,).
        is_missing: bool (n,).
        label: of the column, for sentences.
        share: of the column's false-discovery budget.
    """
    count, n = int(is_missing.sum()), len(sample)
    if not count or not sketch.samples:
        return
    # Values that are missing now and then may be missing in bursts. Where none were missing before, any are news.
    time = estimate_correlation_time(is_missing.astype(np.float64)) if sketch.missing else 1.0
    scale = sketch.effective / sketch.known if sketch.known else 1.0
    p = float(compute_exceedance_p(count / time, n / time, sketch.missing * scale, sketch.samples * scale))
    before, now = sketch.missing / sketch.samples, count / n
    yield ColumnDrift(
        sketch.name,
        label,
        "missing",
        before,
        now,
        # Fewer missing values than before are not a problem of the data.
        max(0.0, now - before),
        min(1.0, p / share),
        sketch,
        sample,
        n / time,
    )
