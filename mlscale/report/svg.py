"""Draws figures as SVG that stands inside a page: it takes the page's colours, light or dark, and its text size.

Every text goes through markupsafe, which escapes it. A plot is 440 units wide, so that its text is legible on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from mlscale.report.figures import Bars, Figure, Line, Rows
from mlscale.report.text import number

_WIDTH, _HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 24, 42  # of the area that is drawn in
_SVG = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">{}</svg>')
_TEXT = Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>')
_RULE = Markup('<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" class="{}"/>')
_CURVE = Markup('<polyline points="{}" class="line s{}"/>')
_DOT = Markup('<circle cx="{}" cy="{}" r="2.4" class="s{}"/>')
_BAR = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" class="{}"/>')
COLOURS = 4  # series that can be told apart
_DIGITS = 13  # columns of a label beneath a bar, together; more would overlap


def draw(figure: Figure) -> Markup:
    """The figure as an `<svg>` element with its words as its name for those who do not see it."""
    if isinstance(figure, Rows):
        return _rows(figure)
    return _bars(figure) if isinstance(figure, Bars) else _line(figure)


def _line(figure: Line) -> Markup:
    points = [series.points() for series in figure.series[:COLOURS]]
    ys = [y for each in points for _, y in each if math.isfinite(y)] + [value for _, value in figure.marks]
    xs = [x for each in points for x, y in each if math.isfinite(y)]
    if not xs:
        return _empty(figure)
    across, up = _Axis(xs, _LEFT, _WIDTH - _RIGHT), _Axis([*ys, *[0.0] * figure.zero], _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(up), _names(figure.x, figure.y)]
    parts += [_tick(across.at(value), number(value)) for value in across.ticks if across.holds(value)]
    for name, value in figure.marks:
        height = up.at(value)
        parts.append(_RULE.format(_LEFT, _WIDTH - _RIGHT, height, height, "mark"))
        parts.append(_TEXT.format(_WIDTH - _RIGHT, height - 4, "end", name))
    for index, each in enumerate(points):
        parts += _path(index, each, across, up)
    return _svg(figure, _HEIGHT, parts)


def _path(index: int, points: Sequence[tuple[float, float]], across: _Axis, up: _Axis) -> list[Markup]:
    """A line, broken where values lack; a few points are dots, too, so that one alone is seen."""
    runs: list[list[str]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            runs[-1].append(f"{across.at(x):.1f},{up.at(y):.1f}")
        elif runs[-1]:
            runs.append([])
    drawn = [_CURVE.format(" ".join(run), index) for run in runs if len(run) > 1]
    if len(points) <= 40:
        drawn += [_DOT.format(*place.split(","), index) for run in runs for place in run]
    return drawn


def _bars(figure: Bars) -> Markup:
    shown = figure.series[:COLOURS]
    ys = [value for series in shown for value in series.y if math.isfinite(value)]
    if not ys:
        return _empty(figure)
    up = _Axis([0.0, *ys], _HEIGHT - _BOTTOM, _TOP)
    slot = (_WIDTH - _LEFT - _RIGHT) / len(figure.labels)
    width, base = slot * 0.8 / len(shown), up.at(0.0)
    parts = [_grid(up), _names(figure.x, figure.y)]
    for index, series in enumerate(shown):
        for place, value in enumerate(series.y):
            if not math.isfinite(value):
                continue
            left, top = _LEFT + slot * (place + 0.1) + width * index, up.at(value)
            parts.append(_BAR.format(left, min(top, base), width, abs(base - top), f"s{index}"))
    columns = max(len(label) for label in figure.labels)
    room = max(1, int((_WIDTH - _LEFT - _RIGHT) / (9 * min(columns, _DIGITS) + 8)))
    every = math.ceil(len(figure.labels) / room)
    for place in range(0, len(figure.labels), every):
        parts.append(_tick(_LEFT + slot * (place + 0.5), _short(figure.labels[place], _DIGITS)))
    return _svg(figure, _HEIGHT, parts)


def _rows(figure: Rows) -> Markup:
    """Each label above its bar, so that long ones have room."""
    finite = [value for _, value in figure.rows if math.isfinite(value)]
    whole = figure.whole or max([0.0, *finite]) or 1.0
    parts, step = [], 40
    for place, (label, value) in enumerate(figure.rows):
        top = place * step + 16
        length = max(0.0, min(1.0, value / whole)) * _WIDTH if math.isfinite(value) else 0.0
        parts.append(_TEXT.format(0, top, "label", _short(label, 42)))
        parts.append(_TEXT.format(_WIDTH, top, "end", figure.shown(value)))
        parts.append(_BAR.format(0, top + 6, _WIDTH, 12, "track"))
        parts.append(_BAR.format(0, top + 6, length, 12, "s0"))
    return _svg(figure, len(figure.rows) * step + 4, parts)


class _Axis:
    """From values to places, with round ticks about it."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        if low == high:
            low, high = low - abs(low) / 2 - (not low), high + abs(high) / 2 + (not high)
        step = _round_step((high - low) / 4)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        self.ticks = [count * step for count in range(first, last + 1)]
        upright = start > end
        self._low, self._high = (self.ticks[0], self.ticks[-1]) if upright else (low, high)
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """The place of a value."""
        return self._start + (value - self._low) / (self._high - self._low) * (self._end - self._start)

    def holds(self, value: float) -> bool:
        return self._low - 1e-12 <= value <= self._high + 1e-12


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _grid(up: _Axis) -> Markup:
    lines = []
    for value in up.ticks:
        height = up.at(value)
        lines.append(_RULE.format(_LEFT, _WIDTH - _RIGHT, height, height, "grid"))
        lines.append(_TEXT.format(_LEFT - 6, height + 4, "end", number(round(value, 12))))
    return Markup("").join(lines)


def _names(x: str, y: str) -> Markup:
    """The axes' names. The legend is the page's: text there wraps."""
    left = _TEXT.format(0, 12, "axis", y)
    return left + _TEXT.format(_WIDTH - _RIGHT, _HEIGHT - 6, "axis end", x)


def _tick(x: float, text: str) -> Markup:
    base = _HEIGHT - _BOTTOM
    return _RULE.format(f"{x:.1f}", f"{x:.1f}", base, base + 4, "tick") + _TEXT.format(x, base + 17, "middle", text)


def _svg(figure: Figure, height: int, parts: Sequence[Markup]) -> Markup:
    return _SVG.format(_WIDTH, height, figure.words(), Markup("").join(parts))


def _empty(figure: Figure) -> Markup:
    return _svg(figure, 40, [_TEXT.format(0, 24, "label", "no values")])


def _short(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 1] + "…"
