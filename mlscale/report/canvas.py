"""Elements of plots: positions, texts, lines and axes, in units of which a plot is 440 wide.

Every text is escaped by markupsafe. At this width, a plot's text is legible on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from mlscale.report.figures import Figure
from mlscale.report.text import format_number

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
