"""Plots of a result, as numbers: `svg` draws them, and the page arranges them.

As JSON, blocks of a page are made by one process and put on a page by another.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mlscale.report.blocks import (
    Block,
    CommandList,
    ConfusionMatrixPlot,
    Heading,
    ImageBlock,
    KeyNumbers,
    PagePart,
    ScatterPlot,
    TableBlock,
)
from mlscale.report.text import format_number

MOST_POINTS = 400  # of a series: more are not visible, and make the page large


@dataclass(frozen=True)
class Series(PagePart):
    """A named series of values.

    Attributes:
        name: shown in the legend.
        y: the values; one that is not finite is a gap.
        x: their positions on the axis; 0, 1, 2, … where empty.
    """

    name: str
    y: Sequence[float]
    x: Sequence[float] = ()

    def get_points(self) -> list[tuple[float, float]]:
        """Return (x, y) sorted by x; at most `MOST_POINTS`, with extreme values kept."""
        places = self.x or range(len(self.y))
        return reduce_points([(float(x), float(y)) for x, y in zip(places, self.y, strict=True) if math.isfinite(x)])


@dataclass(frozen=True)
class PlotEvent(PagePart):
    """A vertical line at a place of the horizontal axis, for an event such as the change of a version.

    Attributes:
        name: above the line; an alert's is in the text alternative alone.
        x: the place.
        is_alert: True to highlight it.
    """

    name: str
    x: float
    is_alert: bool = False


@dataclass(frozen=True)
class LinePlot(PagePart):
    """A line plot, such as a loss over steps.

    Attributes:
        title: above the plot.
        series: one line each, four at most.
        x, y: the axes' names with their units.
        zero: True if the y-axis includes zero.
        marks: horizontal lines with a name, such as a limit.
        alt: the text alternative; made from the numbers where empty.
        events: vertical lines.
        is_time: True if x is in seconds since 1970.
    """

    title: str
    series: Sequence[Series]
    x: str
    y: str
    zero: bool = False
    marks: Sequence[tuple[str, float]] = ()
    alt: str = ""
    events: Sequence[PlotEvent] = ()
    is_time: bool = False

    def get_alt_text(self) -> str:
        return self.alt or "; ".join(
            [_describe_series(item, self.x, format_time if self.is_time else format_number) for item in self.series]
            + _describe_marks(self.marks)
        )


@dataclass(frozen=True)
class BarPlot(PagePart):
    """Vertical bars by category: classes, or the bins of a histogram; the bars of two series are next to each other.

    Attributes:
        title: above the plot.
        labels: the categories, or the bins' lower edges.
        series: one value for each category; the reference first, then the current one.
        x, y: the axes' names with their units.
        alt: the text alternative; made from the numbers where empty.
    """

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    x: str
    y: str
    alt: str = ""

    def get_alt_text(self) -> str:
        if self.alt:
            return self.alt
        # With more bars a list of all values is too long for a screen reader.
        if len(self.labels) > 24:
            return "; ".join(
                f"{item.name}: {len(self.labels)} bars, {_describe_largest(item, self.labels)}" for item in self.series
            )
        pairs = [zip(self.labels, item.y, strict=True) for item in self.series]
        value_texts = [", ".join(f"{label} {format_number(value)}" for label, value in item) for item in pairs]
        return "; ".join(f"{item.name}: {text}" for item, text in zip(self.series, value_texts, strict=True))


@dataclass(frozen=True)
class HorizontalBarPlot(PagePart):
    """Horizontal bars, each with a label, such as the parts of a step.

    Attributes:
        title: above the plot.
        rows: (label, value), in the order shown.
        unit: of the values; shown after each.
        whole: the value of a full bar; the largest value where None.
        alt: the text alternative; made from the numbers where empty.
    """

    title: str
    rows: Sequence[tuple[str, float]]
    unit: str = ""
    whole: float | None = None
    alt: str = ""

    def get_alt_text(self) -> str:
        return self.alt or ", ".join(f"{label} {self.format_with_unit(value)}" for label, value in self.rows)

    def format_with_unit(self, value: float) -> str:
        """Return a value with its unit, with three digits."""
        return f"{format_number(value, 3)} {self.unit}".rstrip() if math.isfinite(value) else "not measured"


Figure = LinePlot | BarPlot | HorizontalBarPlot | Block


@dataclass(frozen=True)
class ReportStep(PagePart):
    """A numbered step of a report.

    Attributes:
        title: the action, in a word or two.
        sentence: its result.
        ok: True if it succeeded; None for a step that was not reached.
        value: its key metric, with its unit.
        seconds: its duration; None where unknown.
        figure: a plot.
        page: a page with details: a path relative to this page.
    """

    title: str
    sentence: str = ""
    ok: bool | None = True
    value: str = ""
    seconds: float | None = None
    figure: Figure | None = None
    page: str = ""


def reduce_points(points: list[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Return at most `most` points: the smallest and the largest of each section, so that no spike is lost."""
    points = sorted(points, key=lambda point: point[0])
    if len(points) <= most:
        return points
    # Each section of this size keeps two points.
    size = math.ceil(2 * len(points) / most)
    reduced = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        # A section without any value keeps one point, so that the line has a gap there.
        finite = [point for point in stretch if math.isfinite(point[1])] or stretch[:1]
        ends = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])}
        reduced += sorted(ends, key=lambda point: point[0])
    return reduced


def format_time(seconds: float) -> str:
    """Return a time in seconds since 1970 as text, in UTC: 2026-01-05 10:00."""
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M}"


def _describe_series(series: Series, axis: str, format_place: Callable[[float], str]) -> str:
    """Return a series in words: its first and last point, its smallest and largest value."""
    points = [point for point in series.get_points() if math.isfinite(point[1])]
    if not points:
        return f"{series.name}: no values"
    (first_x, first), (last_x, last) = points[0], points[-1]
    least, largest = min(y for _, y in points), max(y for _, y in points)
    return (
        f"{series.name} from {format_number(first)} at {axis} {format_place(first_x)} "
        f"to {format_number(last)} at {format_place(last_x)}, "
        f"between {format_number(least)} and {format_number(largest)}"
    )


def _describe_marks(marks: Sequence[tuple[str, float]]) -> list[str]:
    return [f"{name} at {format_number(value)}" for name, value in marks]


def _describe_largest(series: Series, labels: Sequence[str]) -> str:
    finite = [(value, label) for value, label in zip(series.y, labels, strict=True) if math.isfinite(value)]
    return "the largest {1} with {0}".format(*max(finite)) if finite else "no values"


_KINDS: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        BarPlot, CommandList, ConfusionMatrixPlot, Heading, HorizontalBarPlot, ImageBlock, KeyNumbers,
        LinePlot, PlotEvent, ScatterPlot, Series, TableBlock,
    )
}  # fmt: skip
_KIND, _BYTES, _NUMBER = "kind", "base64", "number"


def convert_from_blocks(blocks: Sequence[Figure]) -> list[Any]:
    """Return figures as values of JSON's types."""
    return [_convert_from(block) for block in blocks]


def convert_to_blocks(documents: Sequence[Any]) -> list[Figure]:
    """Return the figures of `convert_from_blocks`.

    Raises:
        ValueError, TypeError, KeyError: the documents are something else.
    """
    return [_convert_to(document) for document in documents]


def _convert_from(value: object) -> Any:
    if is_dataclass(value) and type(value) in _KINDS.values():
        content = {field.name: _convert_from(getattr(value, field.name)) for field in fields(value)}
        return {_KIND: type(value).__name__, **content}
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_convert_from(item) for item in value]
    # JSON has neither NaN nor infinities.
    return {_NUMBER: str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _convert_to(document: object) -> Any:
    if isinstance(document, list):
        return [_convert_to(item) for item in document]
    if isinstance(document, dict) and _BYTES in document:
        return base64.b64decode(document[_BYTES], validate=True)
    if isinstance(document, dict) and _NUMBER in document:
        return float(document[_NUMBER])
    if isinstance(document, dict):
        content = {name: _convert_to(value) for name, value in document.items() if name != _KIND}
        return _KINDS[document[_KIND]](**content)
    return document
