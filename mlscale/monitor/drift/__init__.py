"""Drift: columns of a window of events, compared with their sketches; data quality first."""

from mlscale.monitor.drift.column_drift import ColumnDrift
from mlscale.monitor.drift.compare_columns import DriftLimits, compare_columns, select_farthest_results
from mlscale.monitor.drift.seasonal_reference import SeasonalReference

__all__ = ["ColumnDrift", "DriftLimits", "SeasonalReference", "compare_columns", "select_farthest_results"]
