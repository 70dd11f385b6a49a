"""What a page shows besides plots: headings, tables, matrices, pictures, clouds of points."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mlscale.report.text import number

Mask = Callable[[str], str]
_TOLD = 8


@dataclass(frozen=True)
class Heading:
    """The title of a part of the page.

    Attributes:
        title: a word or two.
        text: what is to be seen there, and how to read it.
    """

    title: str
    text: str = ""

    def words(self) -> str:
        return f"{self.title}: {self.text}" if self.text else self.title

    def masked(self, mask: Mask) -> Heading:
        """The same without secrets."""
        return Heading(mask(self.title), mask(self.text))


@dataclass(frozen=True)
class Table:
    """Rows of cells, texts as they are shown.

    Attributes:
        title: what is seen.
        columns: the names of the columns; the first names the rows.
        rows: cells, as many as columns.
        note: below the table: how to read it, or what was left out.
        marked: the rows that stand out, by number.
        narrow: whether it may stand beside another block.
        terminal: whether it is printed where the result is, too.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    marked: Sequence[int] = ()
    narrow: bool = False
    terminal: bool = False

    def words(self) -> str:
        return f"{self.title}: {len(self.rows)} rows"

    def masked(self, mask: Mask) -> Table:
        """The same without secrets."""
        rows = [[mask(cell) for cell in row] for row in self.rows]
        columns = [mask(name) for name in self.columns]
        return replace(self, title=mask(self.title), columns=columns, rows=rows, note=mask(self.note))


@dataclass(frozen=True)
class Matrix:
    """Counts by row and column, darker where there are more: a confusion matrix.

    Attributes:
        title: what is seen.
        labels: of the rows, and of the columns.
        values: a row each; shares of the row colour the cells.
        x, y: what the columns and the rows are.
        alt: the matrix in words; made from the numbers where empty.
    """

    title: str
    labels: Sequence[str]
    values: Sequence[Sequence[float]]
    x: str
    y: str
    alt: str = ""

    def words(self) -> str:
        if self.alt:
            return self.alt
        off = [
            (value, self.labels[row], self.labels[column])
            for row, cells in enumerate(self.values)
            for column, value in enumerate(cells)
            if row != column and value > 0
        ]
        told = sorted(off, key=lambda cell: -cell[0])[:_TOLD]
        return (
            "; ".join(f"{number(value)} of {row} taken for {column}" for value, row, column in told) or "no confusion"
        )

    def masked(self, mask: Mask) -> Matrix:
        """The same without secrets."""
        return replace(self, title=mask(self.title), labels=[mask(label) for label in self.labels], alt=mask(self.alt))


@dataclass(frozen=True)
class Picture:
    """A PNG that stands in the page itself.

    Attributes:
        title: what is seen.
        png: its content.
        width: pixels, at which it is shown at most.
        alt: the picture in words.
    """

    title: str
    png: bytes
    width: int
    alt: str = ""

    def words(self) -> str:
        return self.alt or self.title

    def source(self) -> str:
        """The picture as the `src` of an image."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    def masked(self, mask: Mask) -> Picture:
        """The same without secrets in its words; what is drawn stays as it is."""
        return replace(self, title=mask(self.title), alt=mask(self.alt))


@dataclass(frozen=True)
class Scatter:
    """Points: a residual over a prediction.

    Attributes:
        title: what is seen.
        x, y: of each point.
        across, up: the axes' names with their units.
        marks: horizontal lines with a name.
        alt: the plot in words.
    """

    title: str
    x: Sequence[float]
    y: Sequence[float]
    across: str
    up: str
    marks: Sequence[tuple[str, float]] = ()
    alt: str = ""

    def words(self) -> str:
        known = [y for _, y in self.points()]
        return self.alt or (
            f"{len(known)} points, {number(min(known))} to {number(max(known))}" if known else "no points"
        )

    def points(self) -> list[tuple[float, float]]:
        """Those that are finite."""
        pairs = ((float(x), float(y)) for x, y in zip(self.x, self.y, strict=True))
        return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]

    def masked(self, mask: Mask) -> Scatter:
        """The same without secrets."""
        return replace(self, title=mask(self.title), across=mask(self.across), up=mask(self.up), alt=mask(self.alt))


Block = Heading | Table | Matrix | Picture | Scatter
