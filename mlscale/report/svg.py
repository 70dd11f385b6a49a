"""Draw figures as SVG inside a page, whose style sets the colours, light or dark, and the text size.

The elements are in `canvas`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from mlscale.report.blocks import Matrix, Scatter
from mlscale.report.canvas import (
    BAR,
    BOTTOM,
    COLOURS,
    CURVE,
    DIGITS,
    DOT,
    HEIGHT,
    LEFT,
    RIGHT,
    RULE,
    TEXT,
    TOP,
    WIDTH,
    Axis,
    empty,
    grid,
    names,
    short,
    svg,
    tick,
)
from mlscale.report.clouds import matrix, scatter
from mlscale.report.figures import Bars, Line, Rows
from mlscale.report.text import number


def draw(figure: Line | Bars | Rows | Matrix | Scatter) -> Markup:
    """Return the figure as an `<svg>` element, with its text alternative as the label for screen readers."""
    if isinstance(figure, Rows):
        return _rows(figure)
    if isinstance(figure, Matrix | Scatter):
        return matrix(figure) if isinstance(figure, Matrix) else scatter(figure)
    return _bars(figure) if isinstance(figure, Bars) else _line(figure)


def _line(figure: Line) -> Markup:
    points = [series.points() for series in figure.series[:COLOURS]]
    ys = [y for each in points for _, y in each if math.isfinite(y)] + [value for _, value in figure.marks]
    xs = [x for each in points for x, y in each if math.isfinite(y)]
    if not xs:
        return empty(figure)
    # `zero` is a bool: it adds one 0.0, or none.
    across, up = Axis(xs, LEFT, WIDTH - RIGHT), Axis([*ys, *[0.0] * figure.zero], HEIGHT - BOTTOM, TOP)
    parts = [grid(up), names(figure.x, figure.y)]
    parts += [tick(across.at(value), number(value)) for value in across.ticks if across.holds(value)]
    for name, value in figure.marks:
        height = up.at(value)
        parts.append(RULE.format(LEFT, WIDTH - RIGHT, height, height, "mark"))
        parts.append(TEXT.format(WIDTH - RIGHT, height - 4, "end", name))
    for index, each in enumerate(points):
        parts += _path(index, each, across, up)
    return svg(figure, HEIGHT, parts)


def _path(index: int, points: Sequence[tuple[float, float]], across: Axis, up: Axis) -> list[Markup]:
    """Draw a line with gaps at missing values; with few points these are drawn as dots, too, so that one is visible."""
    runs: list[list[str]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            runs[-1].append(f"{across.at(x):.1f},{up.at(y):.1f}")
        elif runs[-1]:
            runs.append([])
    drawn = [CURVE.format(" ".join(run), index) for run in runs if len(run) > 1]
    if len(points) <= 40:
        drawn += [DOT.format(*place.split(","), index) for run in runs for place in run]
    return drawn


def _bars(figure: Bars) -> Markup:
    shown = figure.series[:COLOURS]
    ys = [value for series in shown for value in series.y if math.isfinite(value)]
    if not ys:
        return empty(figure)
    # From zero: the length of a bar stands for its value.
    up = Axis([0.0, *ys], HEIGHT - BOTTOM, TOP)
    slot = (WIDTH - LEFT - RIGHT) / len(figure.labels)
    width, base = slot * 0.8 / len(shown), up.at(0.0)
    parts = [grid(up), names(figure.x, figure.y)]
    for index, series in enumerate(shown):
        for place, value in enumerate(series.y):
            if not math.isfinite(value):
                continue
            left, top = LEFT + slot * (place + 0.1) + width * index, up.at(value)
            parts.append(BAR.format(left, min(top, base), width, abs(base - top), f"s{index}"))
    columns = max(len(label) for label in figure.labels)
    # About 9 units for a character and 8 between labels: where not all fit, every n-th label is drawn.
    room = max(1, int((WIDTH - LEFT - RIGHT) / (9 * min(columns, DIGITS) + 8)))
    every = math.ceil(len(figure.labels) / room)
    for place in range(0, len(figure.labels), every):
        parts.append(tick(LEFT + slot * (place + 0.5), short(figure.labels[place], DIGITS)))
    return svg(figure, HEIGHT, parts)


def _rows(figure: Rows) -> Markup:
    """Draw each label above its bar, so that long labels fit."""
    finite = [value for _, value in figure.rows if math.isfinite(value)]
    # Where all values are 0, the full bar is 1: the widths are divided by it.
    whole = figure.whole or max([0.0, *finite]) or 1.0
    parts, step = [], 40
    for place, (label, value) in enumerate(figure.rows):
        top = place * step + 16
        length = max(0.0, min(1.0, value / whole)) * WIDTH if math.isfinite(value) else 0.0
        parts.append(TEXT.format(0, top, "label", short(label, 42)))
        parts.append(TEXT.format(WIDTH, top, "end", figure.shown(value)))
        parts.append(BAR.format(0, top + 6, WIDTH, 12, "track"))
        parts.append(BAR.format(0, top + 6, length, 12, "s0"))
    return svg(figure, len(figure.rows) * step + 4, parts)
