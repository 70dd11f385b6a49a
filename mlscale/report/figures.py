"""Plots of a result, as numbers: `svg` draws them, and the page arranges them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlscale.report.blocks import Block
from mlscale.report.text import number

MOST_POINTS = 400  # of a series: more are not visible, and make the page large
Mask = Callable[[str], str]


@dataclass(frozen=True)
class Series:
    """A named series of values.

    Attributes:
        name: shown in the legend.
        y: the values; one that is not finite is a gap.
        x: their positions on the axis; 0, 1, 2, … where empty.
    """

    name: str
    y: Sequence[float]
    x: Sequence[float] = ()

    def points(self) -> list[tuple[float, float]]:
        """Return (x, y) sorted by x; at most `MOST_POINTS`, with extreme values kept."""
        places = self.x or range(len(self.y))
        return thinned([(float(x), float(y)) for x, y in zip(places, self.y, strict=True) if math.isfinite(x)])


@dataclass(frozen=True)
class Line:
    """A line plot, such as a loss over steps.

    Attributes:
        title: above the plot.
        series: one line each, four at most.
        x, y: the axes' names with their units.
        zero: True if the y-axis includes zero.
        marks: horizontal lines with a name, such as a limit.
        alt: the text alternative; made from the numbers where empty.
    """

    title: str
    series: Sequence[Series]
    x: str
    y: str
    zero: bool = False
    marks: Sequence[tuple[str, float]] = ()
    alt: str = ""

    def words(self) -> str:
        return self.alt or "; ".join([_ends(each, self.x) for each in self.series] + _told(self.marks))

    def masked(self, mask: Mask) -> Line:
        """Return a copy with masked secrets."""
        series = [Series(mask(each.name), each.y, each.x) for each in self.series]
        marks = [(mask(name), value) for name, value in self.marks]
        return Line(mask(self.title), series, mask(self.x), mask(self.y), self.zero, marks, mask(self.alt))


@dataclass(frozen=True)
class Bars:
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

    def words(self) -> str:
        if self.alt:
            return self.alt
        # With more bars a list of all values is too long for a screen reader.
        if len(self.labels) > 24:
            return "; ".join(
                f"{each.name}: {len(self.labels)} bars, {_largest(each, self.labels)}" for each in self.series
            )
        pairs = [zip(self.labels, each.y, strict=True) for each in self.series]
        told = [", ".join(f"{label} {number(value)}" for label, value in each) for each in pairs]
        return "; ".join(f"{each.name}: {text}" for each, text in zip(self.series, told, strict=True))

    def masked(self, mask: Mask) -> Bars:
        """Return a copy with masked secrets."""
        series = [Series(mask(each.name), each.y) for each in self.series]
        labels = [mask(label) for label in self.labels]
        return Bars(mask(self.title), labels, series, mask(self.x), mask(self.y), mask(self.alt))


@dataclass(frozen=True)
class Rows:
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

    def words(self) -> str:
        return self.alt or ", ".join(f"{label} {self.shown(value)}" for label, value in self.rows)

    def shown(self, value: float) -> str:
        """Return a value with its unit, with three digits."""
        return f"{number(value, 3)} {self.unit}".rstrip() if math.isfinite(value) else "not measured"

    def masked(self, mask: Mask) -> Rows:
        """Return a copy with masked secrets."""
        rows = [(mask(label), value) for label, value in self.rows]
        return Rows(mask(self.title), rows, mask(self.unit), self.whole, mask(self.alt))


Figure = Line | Bars | Rows | Block


@dataclass(frozen=True)
class Step:
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

    def masked(self, mask: Mask) -> Step:
        """Return a copy with masked secrets."""
        figure = self.figure.masked(mask) if self.figure else None
        texts = mask(self.title), mask(self.sentence)
        return Step(*texts, self.ok, mask(self.value), self.seconds, figure, mask(self.page))


def thinned(points: list[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """Return at most `most` points: the smallest and the largest of each section, so that no spike is lost."""
    points = sorted(points, key=lambda point: point[0])
    if len(points) <= most:
        return points
    # Each section of this size keeps two points.
    size = math.ceil(2 * len(points) / most)
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        # A section without any value keeps one point, so that the line has a gap there.
        finite = [point for point in stretch if math.isfinite(point[1])] or stretch[:1]
        ends = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])}
        kept += sorted(ends, key=lambda point: point[0])
    return kept


def _ends(series: Series, axis: str) -> str:
    """Return a series in words: its first and last point, its smallest and largest value."""
    points = [point for point in series.points() if math.isfinite(point[1])]
    if not points:
        return f"{series.name}: no values"
    (first_x, first), (last_x, last) = points[0], points[-1]
    least, largest = min(y for _, y in points), max(y for _, y in points)
    return (
        f"{series.name} from {number(first)} at {axis} {number(first_x)} to {number(last)} at {number(last_x)}, "
        f"between {number(least)} and {number(largest)}"
    )


def _told(marks: Sequence[tuple[str, float]]) -> list[str]:
    return [f"{name} at {number(value)}" for name, value in marks]


def _largest(series: Series, labels: Sequence[str]) -> str:
    finite = [(value, label) for value, label in zip(series.y, labels, strict=True) if math.isfinite(value)]
    return "the largest {1} with {0}".format(*max(finite)) if finite else "no values"
