"""Draw figures as SVG inside a page, whose style sets the colours, light or dark, and the text size.

A plot is 440 units wide. Every text is escaped by markupsafe. At this width, a plot's text is legible on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from mlscale.report.blocks import ConfusionMatrixPlot, ScatterPlot
from mlscale.report.figures import BarPlot, Figure, HorizontalBarPlot, LinePlot, PlotEvent, format_time
from mlscale.report.text import format_number, format_percent, is_number_like

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 42  # margins around the area of the plot
SVG = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">{}</svg>')
TEXT = Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>')
RULE = Markup('<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" class="{}"/>')
UPRIGHT = Markup('<line x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}" class="{}"/>')
CURVE = Markup('<polyline points="{}" class="line s{}"/>')
DOT = Markup('<circle cx="{}" cy="{}" r="2.4" class="s{}"/>')
BAR = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"/>')
TITLED_BAR = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"><title>{}</title></rect>')
COLOURS = 4  # series with distinguishable colours
_MOST_IN_FULL = 1e5  # up to which a tick has all its digits
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
DIGITS = 13  # characters of a label beneath a bar; longer ones would overlap


class Axis:
    """An axis: maps values to positions, with ticks at round values."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        if low == high:
            # A single value has no range to divide: it gets one around it. Zero gets one above it, as most plots are of
            # shares and counts, which are never negative.
            low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
        step = round_step((high - low) / 4)
        # The tolerance keeps rounding errors from adding a tick beyond the data.
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        self.ticks = [count * step for count in range(first, last + 1)]
        # SVG counts y downwards, so start > end on a vertical axis. It ends at ticks, a horizontal one with the data.
        upright = start > end
        self._low, self._high = (self.ticks[0], self.ticks[-1]) if upright else (low, high)
        self._start, self._end = start, end

    def scale_value(self, value: float) -> float:
        """Return the position of a value."""
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)

    def format_tick(self, value: float) -> str:
        """Return the label of a tick."""
        # Ten digits: a multiple of the step may have a rounding error in its last ones.
        rounded = float(f"{value:.10g}")
        if abs(rounded) < _MOST_IN_FULL:
            return format_number(rounded)
        # In full, all digits would not fit into the margin: 500 k, 1 M.
        if abs(rounded) >= 1e15:
            return f"{rounded:.3g}"
        unit, prefix = next((unit, name) for unit, name in _PREFIXES if abs(rounded) >= unit)
        return f"{rounded / unit:.6g} {prefix}"

    def is_in_range(self, value: float) -> bool:
        return self._low - 1e-12 <= value <= self._high + 1e-12


def round_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten that is at least `rough`, up to rounding."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def draw_grid(up: Axis) -> Markup:
    lines = []
    for value in up.ticks:
        height = up.scale_value(value)
        lines.append(RULE.format(LEFT, WIDTH - RIGHT, height, height, "grid"))
        lines.append(TEXT.format(LEFT - 6, height + 4, "end", up.format_tick(value)))
    return Markup("").join(lines)


def draw_axis_names(x: str, y: str) -> Markup:
    """Draw the names of the axes. The legend is in the page, where its text can wrap."""
    left = TEXT.format(0, 12, "axis", y)
    return left + TEXT.format(WIDTH - RIGHT, HEIGHT - 6, "axis end", x)


def draw_tick(x: float, text: str) -> Markup:
    base = HEIGHT - BOTTOM
    return RULE.format(f"{x:.1f}", f"{x:.1f}", base, base + 4, "tick") + TEXT.format(x, base + 17, "middle", text)


def wrap_svg(figure: Figure, height: int, parts: Sequence[Markup]) -> Markup:
    return SVG.format(WIDTH, height, figure.get_alt_text(), Markup("").join(parts))


def draw_empty_plot(figure: Figure) -> Markup:
    return wrap_svg(figure, 40, [TEXT.format(0, 24, "label", "no values")])


def shorten_label(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 1] + "…"


_LEAST_CHARACTERS = 4  # characters that distinguish categories
_MOST_TOOLTIPS = 40  # of a line: more are hard to hit, and make the page large
_TOOLTIP = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="8" class="hit"><title>{}</title></circle>')


def draw_plot(figure: LinePlot | BarPlot | HorizontalBarPlot | ConfusionMatrixPlot | ScatterPlot) -> Markup:
    """Return the figure as an `<svg>` element, with its text alternative as the label for screen readers."""
    if isinstance(figure, HorizontalBarPlot):
        return _draw_rows(figure)
    if isinstance(figure, ConfusionMatrixPlot | ScatterPlot):
        return draw_confusion_matrix(figure) if isinstance(figure, ConfusionMatrixPlot) else draw_scatter_plot(figure)
    return _draw_bars(figure) if isinstance(figure, BarPlot) else _draw_line(figure)


def _draw_line(figure: LinePlot) -> Markup:
    points = [series.get_points() for series in figure.series[:COLOURS]]
    ys = [y for series_points in points for _, y in series_points if math.isfinite(y)] + [
        value for _, value in figure.marks
    ]
    xs = [x for series_points in points for x, y in series_points if math.isfinite(y)]
    if not xs:
        return draw_empty_plot(figure)
    # `zero` is a bool: it adds one 0.0, or none.
    # Events outside the lines are in the plot, too: the range of the axis covers both.
    all_xs = [*xs, *(event.x for event in figure.events)]
    across = (TimeAxis if figure.is_time else Axis)(all_xs, LEFT, WIDTH - RIGHT)
    up = Axis([*ys, *[0.0] * figure.zero], HEIGHT - BOTTOM, TOP)
    parts = [*_draw_frame(figure.x, figure.y, across, up, figure.marks), *_draw_events(figure.events, across)]
    for index, series_points in enumerate(points):
        parts += _draw_path(index, series_points, across, up)
    for series, series_points in zip(figure.series, points, strict=False):
        finite = [point for point in series_points if math.isfinite(point[1])]
        for x, y in finite[:: math.ceil(len(finite) / _MOST_TOOLTIPS) or 1]:
            position = format_time(x) if figure.is_time else f"{figure.x} {format_number(x)}"
            tooltip = f"{series.name}: {format_number(y)}, {position}"
            parts.append(_TOOLTIP.format(across.scale_value(x), up.scale_value(y), tooltip))
    return wrap_svg(figure, HEIGHT, parts)


def _draw_frame(x: str, y: str, across: Axis, up: Axis, marks: Sequence[tuple[str, float]]) -> Iterator[Markup]:
    """Yield the axes with their names and ticks, and a horizontal line for each mark."""
    yield draw_grid(up)
    yield draw_axis_names(x, y)
    for value in filter(across.is_in_range, across.ticks):
        yield draw_tick(across.scale_value(value), across.format_tick(value))
    for name, value in marks:
        height = up.scale_value(value)
        yield RULE.format(LEFT, WIDTH - RIGHT, height, height, "mark")
        yield TEXT.format(WIDTH - RIGHT, height - 4, "end", name)


def _draw_events(events: Sequence[PlotEvent], across: Axis) -> list[Markup]:
    """Draw vertical lines, and the names of those that are not alerts where they do not overlap."""
    drawn, free = [], 0.0
    for event in sorted(events, key=lambda event: event.x):
        x = across.scale_value(event.x)
        drawn.append(UPRIGHT.format(x, x, TOP, HEIGHT - BOTTOM, "mark" if event.is_alert else "event"))
        if not event.is_alert and x >= free:
            name = shorten_label(event.name, DIGITS)
            drawn.append(TEXT.format(min(x + 2, WIDTH - RIGHT - 7.0 * len(name)), TOP + 10, "", name))
            free = x + 7.0 * len(name) + 4
    return drawn


def _draw_path(index: int, points: Sequence[tuple[float, float]], across: Axis, up: Axis) -> list[Markup]:
    """Draw a line with gaps at missing values; with few points these are drawn as dots, too, so that one is visible."""
    runs: list[list[str]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            runs[-1].append(f"{across.scale_value(x):.1f},{up.scale_value(y):.1f}")
        elif runs[-1]:
            runs.append([])
    drawn = [CURVE.format(" ".join(run), index) for run in runs if len(run) > 1]
    if len(points) <= 40:
        drawn += [DOT.format(*point.split(","), index) for run in runs for point in run]
    return drawn


def _draw_bars(figure: BarPlot) -> Markup:
    shown = figure.series[:COLOURS]
    ys = [value for series in shown for value in series.y if math.isfinite(value)]
    if not ys:
        return draw_empty_plot(figure)
    # From zero: the length of a bar stands for its value.
    up = Axis([0.0, *ys], HEIGHT - BOTTOM, TOP)
    slot = (WIDTH - LEFT - RIGHT) / len(figure.labels)
    width, base = slot * 0.8 / len(shown), up.scale_value(0.0)
    parts = [draw_grid(up), draw_axis_names(figure.x, figure.y)]
    for index, series in enumerate(shown):
        for slot_index, value in enumerate(series.y):
            if not math.isfinite(value):
                continue
            left, top = LEFT + slot * (slot_index + 0.1) + width * index, up.scale_value(value)
            value_text = f"{figure.labels[slot_index]}, {series.name}: {format_number(value)}"
            parts.append(TITLED_BAR.format(left, min(top, base), width, abs(base - top), f"s{index}", value_text))
    return wrap_svg(figure, HEIGHT, [*parts, *_draw_bar_labels(figure.labels, slot)])


def _draw_bar_labels(labels: Sequence[str], slot: float) -> Iterator[Markup]:
    """Yield a label beneath each bar, cut to the characters that fit; where these are too few, each n-th label."""
    columns = max(len(label) for label in labels)
    # About 9 units for a character and 8 between labels.
    fitting, every = int((slot - 8) / 9), 1
    # Edges of bins follow from each other; categories do not, and are legible by their first letters.
    if fitting < columns and (fitting < _LEAST_CHARACTERS or all(map(is_number_like, labels))):
        fitting = min(columns, DIGITS)
        every = math.ceil((9 * fitting + 8) / slot)
    for index in range(0, len(labels), every):
        yield draw_tick(LEFT + slot * (index + 0.5), shorten_label(labels[index], fitting))


def _draw_rows(figure: HorizontalBarPlot) -> Markup:
    """Draw each label above its bar, so that long labels fit."""
    finite = [value for _, value in figure.rows if math.isfinite(value)]
    # Where all values are 0, the full bar is 1: the widths are divided by it.
    whole = figure.whole or max([0.0, *finite]) or 1.0
    parts, step = [], 40
    for row_index, (label, value) in enumerate(figure.rows):
        top = row_index * step + 16
        length = max(0.0, min(1.0, value / whole)) * WIDTH if math.isfinite(value) else 0.0
        parts.append(TEXT.format(0, top, "label", shorten_label(label, 42)))
        parts.append(TEXT.format(WIDTH, top, "end", figure.format_with_unit(value)))
        parts.append(BAR.format(0, top + 6, WIDTH, 12, "track"))
        parts.append(BAR.format(0, top + 6, length, 12, "s0"))
    return wrap_svg(figure, len(figure.rows) * step + 4, parts)


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
    parts = list(_draw_frame(figure.across, figure.up, across, up, figure.marks))
    faint = min(0.8, max(0.15, 60 / len(points)))
    parts += [
        _POINT.format(across.scale_value(x), up.scale_value(y), faint, f"{format_number(x)}, {format_number(y)}")
        for x, y in points
    ]
    return wrap_svg(figure, HEIGHT, parts)


_MINUTE, _DAY = 60, 86_400
_STEPS = (
    *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)),
    *(_DAY * n for n in (1, 2, 7, 14, 28, 91, 182, 364)),
)
_MOST_SECTIONS = 4  # between ticks: the label of a time is long


class TimeAxis(Axis):
    """Maps seconds since 1970 to positions, with ticks at whole minutes, hours or days."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        if high - low < _MINUTE:
            # A single check is a point in the middle of two minutes.
            low, high = low - _MINUTE, high + _MINUTE
        super().__init__([low, high], start, end)
        self.step = next((step for step in _STEPS if high - low <= _MOST_SECTIONS * step), _STEPS[-1])
        self.ticks = [n * self.step for n in range(math.ceil(low / self.step), math.floor(high / self.step) + 1)]

    def format_tick(self, value: float) -> str:
        """Return the label of a tick: 01-05 10:30, or 2026-01-05 where ticks are whole days."""
        return format_time(value)[5:] if self.step < _DAY else format_time(value)[:10]
