"""Show results: a table and a page for users, JSON for programs."""

from mlscale.report.blocks import Heading, Matrix, Picture, Scatter, Table
from mlscale.report.figures import Bars, Figure, Line, Rows, Series, Step
from mlscale.report.result import Result, emit, keep
from mlscale.report.text import duration, key_values, number, size, table

__all__ = [
    "Bars",
    "Figure",
    "Heading",
    "Line",
    "Matrix",
    "Picture",
    "Result",
    "Rows",
    "Scatter",
    "Series",
    "Step",
    "Table",
    "duration",
    "emit",
    "keep",
    "key_values",
    "number",
    "size",
    "table",
]
