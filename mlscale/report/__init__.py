"""Show results: a table and a page for users, JSON for programs."""

from mlscale.report.blocks import (
    CommandList,
    ConfusionMatrixPlot,
    Heading,
    ImageBlock,
    KeyNumbers,
    ScatterPlot,
    TableBlock,
)
from mlscale.report.figures import BarPlot, Figure, HorizontalBarPlot, LinePlot, PlotEvent, ReportStep, Series
from mlscale.report.result import Result, print_result, save_result
from mlscale.report.text import format_duration, format_key_values, format_number, format_size, format_table

__all__ = [
    "BarPlot",
    "CommandList",
    "ConfusionMatrixPlot",
    "Figure",
    "Heading",
    "HorizontalBarPlot",
    "ImageBlock",
    "KeyNumbers",
    "LinePlot",
    "PlotEvent",
    "ReportStep",
    "Result",
    "ScatterPlot",
    "Series",
    "TableBlock",
    "format_duration",
    "format_key_values",
    "format_number",
    "format_size",
    "format_table",
    "print_result",
    "save_result",
]
