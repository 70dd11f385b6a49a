"""Draw confusion matrices and scatter plots as SVG."""

from __future__ import annotations

import math

from markupsafe import Markup

from mlscale.report.blocks import ConfusionMatrixPlot, ScatterPlot
from mlscale.report.canvas import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    RULE,
    TEXT,
    TOP,
    WIDTH,
    Axis,
    draw_axis_names,
    draw_empty_plot,
    draw_grid,
    draw_tick,
    shorten_label,
    wrap_svg,
)
from mlscale.report.text import format_number, format_percent

_CELL = Markup(
    '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}" fill-opacity="{:.2f}">'
    "<title>{}</title></rect>"
)
_POINT = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.5" class="s0" fill-opacity="{:.2f}"><title>{}</title></circle>')
_MOST_CLASSES = 30  # with more, the cells are too small to read
_NUMBERED = 16  # with at most so many classes the cells show their counts
_MOST_POINTS = 1000  # more make the page large and look the same


def draw_confusion_matrix(figure: ConfusionMatrixPlot) -> Markup:
    """Draw a square of cells, coloured by their share of the row, in two colours: correct and wrong predictions."""
    count = min(len(figure.labels), _MOST_CLASSES)
    if not count:
        return draw_empty_plot(figure)
    left = 12 + 8 * min(9, max(len(label) for label in figure.labels[:count]))
    side = (WIDTH - left - 4) / count
    parts = [TEXT.format(0, 12, "axis", f"{figure.y} ↓")]
    for row in range(count):
        cells, top = figure.values[row], 24 + side * row
        whole = sum(cells) or 1.0
        parts.append(TEXT.format(left - 6, top + side / 2 + 4, "end", shorten_label(figure.labels[row], 9)))
        for column in range(count):
            value, share = cells[column], cells[column] / whole
            tooltip = (
                f"{figure.y} {figure.labels[row]}, {figure.x} {figure.labels[column]}: "
                f"{format_number(value)} ({format_percent(share, 1)})"
            )
            colour = ("s0" if row == column else "s1") if value else "track"
            # Mistakes are amplified: next to the diagonal a share of a few percent would not be visible.
            opacity = 0.12 + 0.88 * share if row == column else 0.2 + 0.8 * min(1.0, share * 3)
            box = (left + side * column, top, side - 1, side - 1)
            parts.append(_CELL.format(*box, colour, opacity if value else 0.5, tooltip))
            if value and count <= _NUMBERED:
                shade = "cell strong" if opacity > 0.55 else "cell"
                parts.append(TEXT.format(box[0] + side / 2, top + side / 2 + 4, shade, format_number(value)))
    base = 24 + side * count
    columns = max(1, int(side / 7.5))
    # Where one character is all that fits, every second label is left out, so that they do not run together.
    every = 1 if columns >= 2 or max(len(label) for label in figure.labels[:count]) <= columns else 2
    for column in range(0, count, every):
        parts.append(
            TEXT.format(
                left + side * (column + 0.5), base + 16, "middle", shorten_label(figure.labels[column], columns)
            )
        )
    parts.append(TEXT.format(WIDTH, base + 36, "axis end", f"{figure.x} →"))
    return wrap_svg(figure, math.ceil(base + 42), parts)


def draw_scatter_plot(figure: ScatterPlot) -> Markup:
    """Draw points, the more the fainter; of more than 1,000 only every n-th."""
    points = figure.get_finite_points()
    if not points:
        return draw_empty_plot(figure)
    points = points[:: math.ceil(len(points) / _MOST_POINTS)]
    across = Axis([x for x, _ in points], LEFT, WIDTH - RIGHT)
    # With the marks, so that a limit beyond all points is visible, too.
    up = Axis([*(y for _, y in points), *(value for _, value in figure.marks)], HEIGHT - BOTTOM, TOP)
    parts = [draw_grid(up), draw_axis_names(figure.across, figure.up)]
    parts += [
        draw_tick(across.scale_value(value), format_number(value))
        for value in across.ticks
        if across.is_in_range(value)
    ]
    faint = min(0.8, max(0.15, 60 / len(points)))
    parts += [
        _POINT.format(across.scale_value(x), up.scale_value(y), faint, f"{format_number(x)}, {format_number(y)}")
        for x, y in points
    ]
    for name, value in figure.marks:
        parts.append(RULE.format(LEFT, WIDTH - RIGHT, up.scale_value(value), up.scale_value(value), "mark"))
        parts.append(TEXT.format(WIDTH - RIGHT, up.scale_value(value) - 4, "end", name))
    return wrap_svg(figure, HEIGHT, parts)
