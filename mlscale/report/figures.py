"""Plots of a result: what they show, as numbers. `svg` draws them, the page places them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlscale.report.blocks import Block
from mlscale.report.text import number

MOST_POINTS = 400  # of a series: more are not seen, and make the page heavy
Mask = Callable[[str], str]


@dataclass(frozen=True)
class Series:
    """Values under one name.

    Attributes:
        name: shown in the legend.
        y: the values; what is not finite is a gap.
        x: where they stand on the axis; 0, 1, 2, … where empty.
    """

    name: str
    y: Sequence[float]
    x: Sequence[float] = ()

    def points(self) -> list[tuple[float, float]]:
        """(x, y) in the order of x; at most `MOST_POINTS`, peaks and valleys kept."""
        places = self.x or range(len(self.y))
        return thinned([(float(x), float(y)) for x, y in zip(places, self.y, strict=True) if math.isfinite(x)])


@dataclass(frozen=True)
class Line:
    """Values over an axis: a loss over steps.

    Attributes:
        title: what is seen, and shown above the plot.
        series: one line each, four at most.
        x, y: the axes' names with their units.
        zero: the y-axis begins at zero.
        marks: horizontal lines with a name, such as a limit.
        alt: the plot in words; made from the numbers where empty.
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
        """The same without secrets."""
        series = [Series(mask(each.name), each.y, each.x) for each in self.series]
        marks = [(mask(name), value) for name, value in self.marks]
        return Line(mask(self.title), series, mask(self.x), mask(self.y), self.zero, marks, mask(self.alt))


@dataclass(frozen=True)
class Bars:
    """Upright bars by category: classes, or the bins of a histogram; two series stand side by side.

    Attributes:
        title: what is seen.
        labels: the categories, or the bins' lower edges.
        series: one value a category each; reference first, then now.
        x, y: the axes' names with their units.
        alt: the plot in words; made from the numbers where empty.
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
        if len(self.labels) > 24:
            return "; ".join(
                f"{each.name}: {len(self.labels)} bars, {_largest(each, self.labels)}" for each in self.series
            )
        pairs = [zip(self.labels, each.y, strict=True) for each in self.series]
        told = [", ".join(f"{label} {number(value)}" for label, value in each) for each in pairs]
        return "; ".join(f"{each.name}: {text}" for each, text in zip(self.series, told, strict=True))

    def masked(self, mask: Mask) -> Bars:
        """The same without secrets."""
        series = [Series(mask(each.name), each.y) for each in self.series]
        labels = [mask(label) for label in self.labels]
        return Bars(mask(self.title), labels, series, mask(self.x), mask(self.y), mask(self.alt))


@dataclass(frozen=True)
class Rows:
    """Horizontal bars with a label each: parts of a step, versions compared.

    Attributes:
        title: what is seen.
        rows: (label, value), in the order shown.
        unit: of the values; shown beside each.
        whole: what a full bar means; the largest value where None.
        alt: the plot in words; made from the numbers where empty.
    """

    title: str
    rows: Sequence[tuple[str, float]]
    unit: str = ""
    whole: float | None = None
    alt: str = ""

    def words(self) -> str:
        return self.alt or ", ".join(f"{label} {self.shown(value)}" for label, value in self.rows)

    def shown(self, value: float) -> str:
        """A value with its unit, three digits."""
        return f"{number(value, 3)} {self.unit}".rstrip() if math.isfinite(value) else "not measured"

    def masked(self, mask: Mask) -> Rows:
        """The same without secrets."""
        rows = [(mask(label), value) for label, value in self.rows]
        return Rows(mask(self.title), rows, mask(self.unit), self.whole, mask(self.alt))


Figure = Line | Bars | Rows | Block


@dataclass(frozen=True)
class Step:
    """One of the steps of a story that is told in order.

    Attributes:
        title: what was done, in a word or two.
        sentence: what came of it.
        ok: whether it did what it should; None for a step that was not reached.
        value: the figure it reached, with its unit.
        seconds: what it took; None where unknown.
        figure: a plot.
        page: a page that tells more: a path relative to this page.
    """

    title: str
    sentence: str = ""
    ok: bool | None = True
    value: str = ""
    seconds: float | None = None
    figure: Figure | None = None
    page: str = ""

    def masked(self, mask: Mask) -> Step:
        """The same without secrets."""
        figure = self.figure.masked(mask) if self.figure else None
        texts = mask(self.title), mask(self.sentence)
        return Step(*texts, self.ok, mask(self.value), self.seconds, figure, mask(self.page))


def thinned(points: list[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` of the points: of each stretch the least and the largest, so that no spike is lost."""
    points = sorted(points, key=lambda point: point[0])
    if len(points) <= most:
        return points
    size = math.ceil(2 * len(points) / most)
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        finite = [point for point in stretch if math.isfinite(point[1])] or stretch[:1]
        ends = {min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])}
        kept += sorted(ends, key=lambda point: point[0])
    return kept


def _ends(series: Series, axis: str) -> str:
    """A line in words: where it begins and ends, its least and its largest value."""
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
