"""Blocks of a page besides plots: headings, tables, matrices, pictures, scatter plots."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from mlscale.report.text import format_number

Mask = Callable[[str], str]
_MOST_MISTAKES = 8  # mistakes that the text of a matrix lists


@dataclass(frozen=True)
class PagePart:
    """A part of a page, whose texts are masked before it is stored."""

    def mask_texts(self, mask: Mask) -> Self:
        """Return a copy with masked secrets in every text, those of its parts included; images are not changed."""
        masked: dict[str, Any] = {field.name: _mask_value(getattr(self, field.name), mask) for field in fields(self)}
        return replace(self, **masked)


def _mask_value(value: object, mask: Mask) -> object:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, PagePart):
        return value.mask_texts(mask)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_mask_value(item, mask) for item in value]
    return value


@dataclass(frozen=True)
class Heading(PagePart):
    """A heading of a section of the page.

    Attributes:
        title: a word or two.
        text: an explanation of the section.
    """

    title: str
    text: str = ""

    def get_alt_text(self) -> str:
        return f"{self.title}: {self.text}" if self.text else self.title


@dataclass(frozen=True)
class TableBlock(PagePart):
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


@dataclass(frozen=True)
class ConfusionMatrixPlot(PagePart):
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


@dataclass(frozen=True)
class ImageBlock(PagePart):
    """An image that is embedded in the page.

    Attributes:
        title: above the image.
        png: its content, PNG or WebP.
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


@dataclass(frozen=True)
class ScatterPlot(PagePart):
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


@dataclass(frozen=True)
class KeyNumbers(PagePart):
    """A row of numbers that are shown large.

    Attributes:
        items: names and values with their units.
        title: for those who do not see it.
    """

    items: Sequence[tuple[str, str]]
    title: str = "Key numbers"

    def get_alt_text(self) -> str:
        return "; ".join(f"{name} {value}" for name, value in self.items)


@dataclass(frozen=True)
class CommandList(PagePart):
    """Commands to type, each with its purpose.

    Attributes:
        title: above the list.
        commands: as they are typed, and what each is for.
    """

    title: str
    commands: Sequence[tuple[str, str]]

    def get_alt_text(self) -> str:
        return f"{self.title}: " + "; ".join(typed for typed, _ in self.commands)


Block = Heading | TableBlock | ConfusionMatrixPlot | ImageBlock | ScatterPlot | KeyNumbers | CommandList


def encode_data_url(image: bytes) -> str:
    """Return a PNG or WebP image as a data URL."""
    kind = "webp" if image.startswith(b"RIFF") else "png"
    return f"data:image/{kind};base64," + base64.b64encode(image).decode()
