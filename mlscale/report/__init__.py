"""One way to show results: for people a table, for programs JSON."""

from mlscale.report.result import Result, emit
from mlscale.report.text import duration, key_values, number, size, table

__all__ = ["Result", "duration", "emit", "key_values", "number", "size", "table"]
