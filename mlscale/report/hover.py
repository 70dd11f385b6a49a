"""Values of a line plot on hover, by CSS alone: a page runs no scripts.

The plot is divided into vertical strips. Each is a transparent rectangle, with a line and a box of the values there,
which are visible while the pointer is on it; on a touch screen, after a tap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from markupsafe import Markup

from mlscale.report.canvas import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, shorten_label
from mlscale.report.text import format_number

Points = Sequence[tuple[float, float]]
_MOST_STRIPS = 40  # of a plot: more are hard to hit, and make the page large
_LETTER, _LINE, _MOST_LETTERS = 7.4, 16, 30
_STRIP = Markup('<g class="hit"><rect x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>{}</g>')
_GUIDE = Markup('<path d="M{:.1f} {}V{}"/>')
_DOT = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" class="s{}"/>')
_BOX = Markup('<rect x="{:.1f}" y="{:.0f}" width="{:.0f}" height="{}" rx="4" class="box"/>')
_TEXT = Markup('<text x="{:.1f}" y="{:.0f}">{}</text>')


def draw_hover(
    series: Sequence[tuple[str, Points]], x_name: str, across: Axis, up: Axis, format_x: Callable[[float], str]
) -> Iterator[Markup]:
    """Yield a strip for each place, or each group of near places, with the values of all series there.

    Args:
        series: names and points (x, y).
        x_name: of the horizontal axis.
        across, up: the axes.
        format_x: returns the text of a place.
    """
    finite = [(name, [(x, y) for x, y in points if math.isfinite(y)]) for name, points in series]
    places = sorted({x for _, points in finite for x, _ in points})
    if not places:
        return
    for left, right in _divide_strips([across.scale_value(x) for x in places]):
        placed = []
        for index, (name, points) in enumerate(finite):
            inside = [(x, y) for x, y in points if left <= across.scale_value(x) < right]
            if inside:
                middle = (left + right) / 2
                placed.append((index, name, *min(inside, key=lambda point: abs(across.scale_value(point[0]) - middle))))
        if placed:
            # The place of the first series that has a value here: the others are as near as their points are.
            # The value first: a long name is cut.
            lines = [f"{x_name} {format_x(placed[0][2])}", *(f"{format_number(y)}  {name}" for _, name, _, y in placed)]
            dots = [_DOT.format(across.scale_value(x), up.scale_value(y), index) for index, _, x, y in placed]
            yield _draw_strip(left, right, across.scale_value(placed[0][2]), lines, dots)


def _divide_strips(positions: Sequence[float]) -> list[tuple[float, float]]:
    """Return the ends of the strips: halfway between places where these are few, of equal width where they are many."""
    first, last = float(LEFT), float(WIDTH - RIGHT)
    if len(positions) <= _MOST_STRIPS:
        between = [(one + other) / 2 for one, other in pairwise(positions)]
    else:
        between = [first + (last - first) * index / _MOST_STRIPS for index in range(1, _MOST_STRIPS)]
    # The last place is at the end of the axis, and a strip holds what is left of its own end.
    return list(zip([first - 1, *between], [*between, last + 1], strict=True))


def _draw_strip(left: float, right: float, at: float, lines: Sequence[str], dots: Sequence[Markup]) -> Markup:
    shown = [shorten_label(line, _MOST_LETTERS) for line in lines]
    width, height = max(map(len, shown)) * _LETTER + 14, len(shown) * _LINE + 8
    # On the side of the line that has more space.
    start = at + 8 if at < (LEFT + WIDTH - RIGHT) / 2 else at - 8 - width
    texts = [_TEXT.format(start + 7, TOP + 16 + index * _LINE, line) for index, line in enumerate(shown)]
    content = [_GUIDE.format(at, TOP, HEIGHT - BOTTOM), *dots, _BOX.format(start, TOP, width, height), *texts]
    return _STRIP.format(left, TOP, right - left, HEIGHT - BOTTOM - TOP, Markup("").join(content))
