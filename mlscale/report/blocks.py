"""Blocks of a page besides plots: headings, tables, matrices, pictures, scatter plots."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mlscale.report.text import format_number

Mask = Callable[[str], str]
_MOST_MISTAKES = 8  # mistakes that the text of a matrix lists


@dataclass(frozen=True)
class Heading:
    """A heading of a section of the page.

    Attributes:
        title: a word or two.
        text: an explanation of the section.
    """

    title: str
    text: str = ""

    def get_alt_text(self) -> str:
        return f"{self.title}: {self.text}" if self.text else self.title

    def mask_texts(self, mask: Mask) -> Heading:
        """Return a copy with masked secrets."""
        return Heading(mask(self.title), mask(self.text))


@dataclass(frozen=True)
class TableBlock:
    """A table: rows of cells, which are texts.

    Attributes:
        title: above the table.
        columns: the names of the columns; the first column holds the names of the rows.
        rows: cells, as many as columns.
        note: below the table: how to read it, or what was left out.
        marked: the numbers of highlighted rows.
        faint: the numbers of rows whose values mean little, such as those of few samples; the note has the reason.
        narrow: True if it may be next to another block.
        terminal: True to print it with the result on the terminal, too.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    marked: Sequence[int] = ()
    faint: Sequence[int] = ()
    narrow: bool = False
    terminal: bool = False

    def get_alt_text(self) -> str:
        return f"{self.title}: {len(self.rows)} rows"

    def mask_texts(self, mask: Mask) -> TableBlock:
        """Return a copy with masked secrets."""
        rows = [[mask(cell) for cell in row] for row in self.rows]
        columns = [mask(name) for name in self.columns]
        return replace(self, title=mask(self.title), columns=columns, rows=rows, note=mask(self.note))


@dataclass(frozen=True)
class ConfusionMatrixPlot:
    """A confusion matrix: counts by row and column, darker for higher shares.

    Attributes:
        title: above the matrix.
        labels: of the rows, and of the columns.
        values: counts, row by row; a cell is coloured by its share of the row.
        x, y: the meaning of the columns and of the rows.
        alt: the text alternative; made from the numbers where empty.
    """

    title: str
    labels: Sequence[str]
    values: Sequence[Sequence[float]]
    x: str
    y: str
    alt: str = ""

    def get_alt_text(self) -> str:
        if self.alt:
            return self.alt
        off = [
            (value, self.labels[row], self.labels[column])
            for row, cells in enumerate(self.values)
            for column, value in enumerate(cells)
            if row != column and value > 0
        ]
        mistakes = sorted(off, key=lambda cell: -cell[0])[:_MOST_MISTAKES]
        return (
            "; ".join(f"{format_number(value)} of {row} predicted as {column}" for value, row, column in mistakes)
            or "no confusion"
        )

    def mask_texts(self, mask: Mask) -> ConfusionMatrixPlot:
        """Return a copy with masked secrets."""
        return replace(self, title=mask(self.title), labels=[mask(label) for label in self.labels], alt=mask(self.alt))


@dataclass(frozen=True)
class ImageBlock:
    """A PNG image that is embedded in the page.

    Attributes:
        title: above the image.
        png: its content.
        width: the largest width at which it is shown, pixels.
        alt: the text alternative.
        legend: names and colours, such as those of classes in masks.
    """

    title: str
    png: bytes
    width: int
    alt: str = ""
    legend: Sequence[tuple[str, str]] = ()

    def get_alt_text(self) -> str:
        return self.alt or self.title

    def encode_data_url(self) -> str:
        """Return the image as a data URL, for the `src` of an element."""
        return encode_data_url(self.png)

    def mask_texts(self, mask: Mask) -> ImageBlock:
        """Return a copy with masked secrets in its texts; the image itself is not changed."""
        legend = [(mask(name), colour) for name, colour in self.legend]
        return replace(self, title=mask(self.title), alt=mask(self.alt), legend=legend)


@dataclass(frozen=True)
class ScatterPlot:
    """A scatter plot, such as residuals over predictions.

    Attributes:
        title: above the plot.
        x, y: of each point.
        across, up: the axes' names with their units.
        marks: horizontal lines with a name.
        alt: the text alternative.
    """

    title: str
    x: Sequence[float]
    y: Sequence[float]
    across: str
    up: str
    marks: Sequence[tuple[str, float]] = ()
    alt: str = ""

    def get_alt_text(self) -> str:
        known = [y for _, y in self.get_finite_points()]
        return self.alt or (
            f"{len(known)} points, {format_number(min(known))} to {format_number(max(known))}" if known else "no points"
        )

    def get_finite_points(self) -> list[tuple[float, float]]:
        """Return the points with finite coordinates."""
        pairs = ((float(x), float(y)) for x, y in zip(self.x, self.y, strict=True))
        return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]

    def mask_texts(self, mask: Mask) -> ScatterPlot:
        """Return a copy with masked secrets."""
        return replace(self, title=mask(self.title), across=mask(self.across), up=mask(self.up), alt=mask(self.alt))


@dataclass(frozen=True)
class GridTile:
    """A sample of an `ImageGrid`.

    Attributes:
        images: PNG or WebP, next to each other.
        title: below them, its label.
        text: a second line, such as its prediction.
        is_wrong: True to highlight the second line.
    """

    images: Sequence[bytes]
    title: str
    text: str = ""
    is_wrong: bool = False

    def mask_texts(self, mask: Mask) -> GridTile:
        """Return a copy with masked secrets in its texts; the images are not changed."""
        return replace(self, title=mask(self.title), text=mask(self.text))


@dataclass(frozen=True)
class ImageGrid:
    """Samples that are images, as many in a row as there is space for.

    Attributes:
        title: above the grid.
        tiles: the samples.
        legend: names and colours, such as those of classes in masks.
    """

    title: str
    tiles: Sequence[GridTile]
    legend: Sequence[tuple[str, str]] = ()

    def get_alt_text(self) -> str:
        return f"{self.title}: {len(self.tiles)} samples"

    def mask_texts(self, mask: Mask) -> ImageGrid:
        """Return a copy with masked secrets in its texts; the images are not changed."""
        legend = [(mask(name), colour) for name, colour in self.legend]
        return ImageGrid(mask(self.title), [tile.mask_texts(mask) for tile in self.tiles], legend)


@dataclass(frozen=True)
class KeyNumbers:
    """A row of numbers that are shown large.

    Attributes:
        items: names and values with their units.
        title: for those who do not see it.
    """

    items: Sequence[tuple[str, str]]
    title: str = "Key numbers"

    def get_alt_text(self) -> str:
        return "; ".join(f"{name} {value}" for name, value in self.items)

    def mask_texts(self, mask: Mask) -> KeyNumbers:
        """Return a copy with masked secrets."""
        return KeyNumbers([(mask(name), mask(value)) for name, value in self.items], mask(self.title))


@dataclass(frozen=True)
class CommandList:
    """Commands to type, each with its purpose.

    Attributes:
        title: above the list.
        commands: as they are typed, and what each is for.
    """

    title: str
    commands: Sequence[tuple[str, str]]

    def get_alt_text(self) -> str:
        return f"{self.title}: " + "; ".join(typed for typed, _ in self.commands)

    def mask_texts(self, mask: Mask) -> CommandList:
        """Return a copy with masked secrets."""
        return CommandList(mask(self.title), [(mask(typed), mask(purpose)) for typed, purpose in self.commands])


Block = Heading | TableBlock | ConfusionMatrixPlot | ImageBlock | ImageGrid | ScatterPlot | KeyNumbers | CommandList


def encode_data_url(image: bytes) -> str:
    """Return a PNG or WebP image as a data URL."""
    kind = "webp" if image.startswith(b"RIFF") else "png"
    return f"data:image/{kind};base64," + base64.b64encode(image).decode()
