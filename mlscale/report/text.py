"""Plain text for a terminal: tables, and numbers in readable form."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from mlscale.report.terminal import get_terminal_width, wrap_text

# A dash or an empty cell matches, too: a missing value must not align a column of numbers to the left.
_NUMERIC = re.compile(r"^[-+]?[\d,.]+([eE][-+]?\d+)?\s?(%|[kMG]|[KMGT]iB|B|ms|s|min|h|d)?$|^(nan|inf|-inf|-|)$")
_MOST_DECIMALS = 6  # of a percentage
_UNITS = ("_bytes", "_samples_per_s", "_per_s", "_ms", "_s", "_usd", "_percent", "_days")
# Of stored keys whose words readers do not know.
_READABLE_NAMES = {
    "headspace_ratio": "speed with a perfect loader, ratio",
    "headspace_spread_percent": "its spread between rounds",
    "predicted_headspace_ratio": "predicted by the timers alone, ratio",
}
# Of the metrics of a run those that mlscale measures: the others are logged by a task, which may be the user's.
_LOGGING = ("train", "evaluate")
_MEASURED = re.compile(r"throughput_(samples|tokens)_per_s|padding_percent|time_s|peak_memory_bytes")
_LEAST_WIDTH = 12  # the smallest width to which a column is cut


def format_table(rows: Iterable[Sequence[object]], headers: Sequence[str] = (), width: int | None = None) -> str:
    """Return rows in aligned columns, numbers to the right, cut to the terminal's width.

    Args:
        rows: the cells; shown by `str`, None as a dash.
        headers: the names of the columns.
        width: characters of a line; the terminal's by default, unlimited where there is none.
    """
    body = [["-" if cell is None else _replace_control_characters(str(cell)) for cell in row] for row in rows]
    lines = ([list(headers)] if headers else []) + body
    if not lines:
        return ""
    columns = range(max(map(len, lines)))
    lines = [line + [""] * (len(columns) - len(line)) for line in lines]
    body = lines[1:] if headers else lines
    right = [bool(body) and all(_NUMERIC.match(line[c]) for line in body) for c in columns]
    widths = _fit_widths(
        [max(measure_width(line[c]) for line in lines) for c in columns], width or get_terminal_width()
    )
    shown = ["  ".join(_format_cell(line[c], widths[c], right[c]) for c in columns).rstrip() for line in lines]
    if headers:
        shown.insert(1, "  ".join("─" * column_width for column_width in widths))
    return "\n".join(shown)


def format_key_values(pairs: Iterable[tuple[str, object]], indent: int = 0) -> str:
    """Return names and values, one pair a line, values aligned and never cut: a path must stay complete.

    Args:
        pairs: of name and value; None is shown as a dash.
        indent: characters that the caller puts before each line.
    """
    known = [(name, "-" if value is None else str(value)) for name, value in pairs]
    name_width = max((measure_width(name) for name, _ in known), default=0)
    lines = [
        f"{_format_cell(name, name_width, False)}  {_align_continuation(value, name_width + 2)}".rstrip()
        for name, value in known
    ]
    return wrap_text("\n".join(lines), get_terminal_width() - indent)


def format_number(value: float, digits: int = 4) -> str:
    """Return a number with about `digits` significant digits: 0.9917, 1,437, 1.2e-05."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def format_count(count: int, noun: str) -> str:
    """Return a number of things: 1 row, 1,200 rows. The noun is given in the singular, and its plural ends in s."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def format_duration(seconds: float) -> str:
    """Return a time span: 12 ms, 3.4 s, 2 min 05 s, 1 h 07 min, 3 d 04 h."""
    if not math.isfinite(seconds):
        return str(seconds)
    if seconds < 0:
        return "-" + format_duration(-seconds)
    # The limits are those of the rounded text: 0.9996 s would read 1000 ms, and 59.96 s 60.0 s.
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    # Rounded before it is split: 3,599.6 s is 1 h 00 min, not 59 min 60 s.
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"


def format_size(count: float) -> str:
    """Return a number of bytes in binary units: 512 B, 1.5 KiB, 24.0 GiB."""
    return _format_bytes(count, 1024, ("KiB", "MiB", "GiB", "TiB"))


def format_decimal_size(count: float) -> str:
    """Return a number of bytes in the units of disks and of `data.cache_gb`: 512 B, 3.1 MB, 63.2 GB."""
    return _format_bytes(count, 1000, ("kB", "MB", "GB", "TB"))


def _format_bytes(count: float, base: int, units: tuple[str, ...]) -> str:
    # Up to here the rounded text is below `base` of its unit: 1023.9 KiB, and not 1024.0.
    most = base - 0.05
    if abs(count) < most:
        return f"{count:.0f} B"
    for unit in units:
        count /= base
        if abs(count) < most or unit == units[-1]:
            break
    return f"{count:.1f} {unit}"


def format_percent(share: float, decimals: int = 1, *, sign: str = "", unit: str = "%") -> str:
    """Return a share as a percentage: 99.6%. Only exactly 1 and 0 read 100% and 0%: else 99.998%, <0.000001%.

    Args:
        decimals: digits after the point, more if they are needed.
        sign: '+' to show the sign of a positive share, too.
        unit: the text after the number.
    """
    if not math.isfinite(share):
        return f"{share}"
    # More digits, until the rounded number is neither 0 nor 100.
    for digits in range(decimals, _MOST_DECIMALS + 1):
        text = f"{100 * share:{sign}.{digits}f}"
        if share in (0, 1, -1) or abs(float(text)) not in (0, 100):
            return text + unit
    shown = "0." + "0" * (_MOST_DECIMALS - 1) + "1" if abs(share) < 0.5 else "99." + "9" * _MOST_DECIMALS
    return ("<" if abs(share) < 0.5 else ">") + shown + unit


def format_metric(name: str, value: float) -> str:
    """Return a metric's value with the unit that the end of its name stands for."""
    if name.endswith("_bytes"):
        return format_size(value)
    if name.endswith("_samples_per_s"):
        return f"{format_number(value)} samples/s"
    if name.endswith("_tokens_per_s"):
        return f"{format_number(value)} tokens/s"
    if name.endswith("_ms"):
        return f"{format_number(value)} ms"
    if name.endswith("_s") and not name.endswith("_per_s"):
        return format_duration(value)
    if name.endswith("_usd"):
        return f"${value:,.2f}" if math.isfinite(value) else "unknown"
    if name.endswith("_percent"):
        return f"{format_number(value)} %"
    if name.endswith("_days"):
        return f"{format_number(value)} d"
    return format_number(value)


def format_metrics(metrics: Mapping[str, float | None], command: str) -> list[tuple[str, str]]:
    """Return a command's metrics as readable names and values; `x_low` and `x_high` are the interval of `x`."""
    shown = []
    for name, value in metrics.items():
        ends = [metrics.get(f"{name}_{end}") for end in ("low", "high")]
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in metrics:
            continue
        # Only NaN differs from itself.
        text = "not measured" if value is None or value != value else format_metric(name, value)
        known = [end for end in ends if end is not None and end == end]
        if len(known) == 2:
            text += " [" + ", ".join(format_metric(name, end) for end in known) + "]"
        shown.append((format_metric_name(name, command), text))
    return shown


def is_number_like(text: str) -> bool:
    """Return True if a cell is empty or holds a number, with or without a unit or an interval."""
    return all(_NUMERIC.match(word) for word in re.sub(r"[\[\],%−–]", " ", text).split())


def format_metric_name(name: str, command: str = "train") -> str:
    """Return a metric's readable name, without the unit that `format_metric` shows; what a task logs keeps its name.

    Args:
        command: whose result the metric is of.
    """
    if command in _LOGGING and not _MEASURED.fullmatch(name):
        return re.sub("^best_", "best ", name)
    unit = next((unit for unit in _UNITS if name.endswith(unit)), "")
    if name in _READABLE_NAMES:
        return _READABLE_NAMES[name]
    # `format_metric` shows no unit for a bare `_per_s`, so it stays in the name.
    return (name if unit == "_per_s" else name.removesuffix(unit)).replace("_", " ")


def measure_width(text: str) -> int:
    """Return the width of `text` in columns of a terminal: two for wide characters, none for combining ones."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _fit_widths(widths: list[int], limit: int) -> list[int]:
    """Return widths with which a line fits: the widest columns are cut first, none below 12."""
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > limit and max(widths) > _LEAST_WIDTH:
        widths[widths.index(max(widths))] -= 1
    return widths


def _format_cell(text: str, width: int, right: bool) -> str:
    if measure_width(text) > width:
        # One character at a time: their widths differ. The last column is for the ellipsis.
        while measure_width(text) > width - 1:
            text = text[:-1]
        text += "…"
    space = " " * (width - measure_width(text))
    return space + text if right else text + space


def _replace_control_characters(text: str) -> str:
    """Replace line breaks and other control characters: escape sequences would act on the terminal."""
    return "".join(character if character.isprintable() else " " for character in text).rstrip()


def _align_continuation(text: str, indent: int) -> str:
    return text.replace("\n", "\n" + " " * indent)


def format_size_change(ratio: float) -> str:
    """Return how much smaller or larger something has become, from the size before divided by the size after."""
    if f"{max(ratio, 1 / ratio):.1f}" == "1.0":
        return "of the same size"
    return f"{ratio:.1f}× smaller" if ratio > 1 else f"{1 / ratio:.1f}× larger"
