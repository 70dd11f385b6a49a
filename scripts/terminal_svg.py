"""A recording of a terminal as an SVG that plays itself: text stays text, nothing is loaded, no script runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from typing import Any

# A character's width and a line's height in the picture, at a font size of 14.
_WIDE, _HIGH, _SIZE, _PAD = 8.43, 18, 14, 14
_END_S = 6.0  # for which the last frame stays
_COLOURS = {
    "red": "#f7768e", "green": "#9ece6a", "brown": "#e0af68", "blue": "#7aa2f7", "magenta": "#bb9af7",
    "cyan": "#7dcfff", "black": "#565f89", "brightblack": "#787c99",
}  # fmt: skip
_INK, _PAGE = "#c8ccd8", "#16181d"
Line = tuple[tuple[int, str, str, bool], ...]
"""Runs of a line: column, text, colour, bold."""


@dataclass(frozen=True)
class Frame:
    """What the terminal showed, and for how many seconds."""

    lines: tuple[Line, ...]
    seconds: float


def read_frames(chunks: Sequence[tuple[float, bytes]], columns: int, rows: int) -> list[Frame]:
    """Return what a terminal of this size shows after each part of its input; at most ten frames a second."""
    pyte = import_module("pyte")  # of the tools alone, and without types
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    frames: list[Frame] = []
    for number, (moment, data) in enumerate(chunks):
        stream.feed(data)
        until = chunks[number + 1][0] if number + 1 < len(chunks) else moment + _END_S
        lines = tuple(_read_line(screen.buffer[row], columns) for row in range(rows))
        if frames and (frames[-1].lines == lines or frames[-1].seconds < 0.1):
            frames[-1] = Frame(lines, frames[-1].seconds + until - moment)
        else:
            frames.append(Frame(lines, until - moment))
    return frames


def _read_line(row: Any, columns: int) -> Line:
    runs: list[tuple[int, str, str, bool]] = []
    for column in range(columns):
        cell = row[column]
        style = (_COLOURS.get(cell.fg, _INK if cell.fg == "default" else f"#{cell.fg}"), bool(cell.bold))
        if runs and runs[-1][2:] == style:
            start, text, *_ = runs[-1]
            runs[-1] = (start, text + cell.data, *style)
        else:
            runs.append((column, cell.data, *style))
    return tuple((start, text.rstrip(), colour, bold) for start, text, colour, bold in runs if text.strip())


def draw_cast(frames: Sequence[Frame]) -> str:
    """Return the SVG. A line that several frames share is drawn once, and used again."""
    rows = max(number for frame in frames for number, line in enumerate(frame.lines, start=1) if line)
    width = round(2 * _PAD + 100 * _WIDE)
    high = 2 * _PAD + rows * _HIGH
    total = sum(frame.seconds for frame in frames)
    drawn = {line: f"l{number}" for number, line in enumerate(dict.fromkeys(x for each in frames for x in each.lines))}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {high}" width="{width}" height="{high}">',
        "<title>mlscale in a terminal: an error with its fix, a training, an export</title>",
        _write_style(total, _find_first_screen(frames)),
        f'<rect width="{width}" height="{high}" rx="8" fill="{_PAGE}"/>',
        "<defs>", *(_draw_line(line, name) for line, name in drawn.items() if line), "</defs>",
    ]  # fmt: skip
    for number, frame in enumerate(frames):
        used = "".join(
            f'<use href="#{drawn[line]}" y="{_PAD + row * _HIGH}"/>' for row, line in enumerate(frame.lines) if line
        )
        last = ' id="end"' if number == len(frames) - 1 else ""
        parts.append(f'<g class="f"{last} style="animation-name:f{number}">{used}</g>')
    parts.insert(3, _write_keyframes(frames, total))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _find_first_screen(frames: Sequence[Frame]) -> float:
    """Return when a command has printed all, s, and the screen is full: there is a pause, and before it a black box."""
    full = 0.9 * max(len(frame.lines) for frame in frames)
    pauses = [number for number, frame in enumerate(frames) if frame.seconds >= 2]
    first = next((number for number in pauses if sum(map(bool, frames[number].lines)) >= full), 0)
    return sum(frame.seconds for frame in frames[:first])


def _write_style(total: float, begin: float) -> str:
    # A negative delay: the picture begins there, and comes to what was before at its end.
    return (
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}"
        f".f{{visibility:hidden;animation:{total:.2f}s step-end {-begin - 0.01:.2f}s infinite}}"
        "@media (prefers-reduced-motion:reduce){.f{animation:none}#end{visibility:visible}}</style>"
    )


def _write_keyframes(frames: Sequence[Frame], total: float) -> str:
    rules, begin = [], 0.0
    for number, frame in enumerate(frames):
        start, end = 100 * begin / total, 100 * (begin + frame.seconds) / total
        before = "0%{visibility:hidden}" if start else ""
        after = f"{end:.3f}%{{visibility:hidden}}" if end < 99.999 else ""
        rules.append(f"@keyframes f{number}{{{before}{start:.3f}%{{visibility:visible}}{after}}}")
        begin += frame.seconds
    return f"<style>{''.join(rules)}</style>"


def _draw_line(line: Line, name: str) -> str:
    runs = "".join(_draw_run(*run) for run in line)
    return f'<text id="{name}" y="{_SIZE}">{runs}</text>'


def _draw_run(column: int, text: str, colour: str, bold: bool) -> str:
    weight = ' font-weight="bold"' if bold else ""
    place = f'x="{_PAD + column * _WIDE:.1f}" textLength="{len(text) * _WIDE:.1f}"'
    return f'<tspan {place} fill="{colour}"{weight}>{escape(text)}</tspan>'
