"""Facts of runs and versions as actions print them: sections, known values, metrics, dates and commits.

Tables that fit a terminal: dates and long texts are shortened, and whole columns left out, but never a value.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlscale.report import format_table
from mlscale.report.terminal import get_terminal_width, wrap_text
from mlscale.report.text import format_metric, format_metric_name, measure_width


def format_section(title: str, text: str) -> str:
    """Return a text below its title, indented; '' for an empty one."""
    return f"\n{title}\n" + "\n".join("  " + line for line in text.splitlines()) if text else ""


def select_known(pairs: Iterable[tuple[str, object]]) -> list[tuple[str, object]]:
    """Return the pairs of a name and a value that is not None."""
    return [(name, value) for name, value in pairs if value is not None]


def list_metrics(metrics: Mapping[str, float | None], command: str = "train") -> list[tuple[str, object]]:
    """Return the readable names and values of the metrics that are known."""
    return [
        (format_metric_name(name, command), format_metric(name, value))
        for name, value in metrics.items()
        if value is not None
    ]


def format_date(time: str) -> str:
    """Return the date and the minute of a time in ISO 8601."""
    return time[:16].replace("T", " ")


def format_commit(code: Mapping[str, Any]) -> str | None:
    """Return the commit of a run's code; None where it is unknown."""
    if not code.get("commit"):
        return None
    # The commit alone would suggest that the code can be checked out as it ran.
    return f"{str(code['commit'])[:12]}{' and uncommitted changes' if code.get('dirty') else ''}"


DATE = 10  # characters of a date; a time is cut to its date


def format_fitted_table(
    rows: Sequence[Sequence[object]], names: Sequence[str], least: Mapping[str, int], droppable: Sequence[str]
) -> str:
    """Return the table with the columns that fit the terminal; a line below it says which were left out.

    Without a terminal nothing is shortened.

    Args:
        rows: the cells; None is shown as a dash.
        names: of the columns.
        least: the widths to which columns may be cut, by name; `DATE` for one of dates. All others stay whole.
        droppable: the columns that a narrow terminal goes without, in this order.
    """
    width = get_terminal_width()
    whole = [max(measure_width(str(cell)) for cell in column) for column in zip(names, *rows, strict=True)]
    widths = [min(full, least.get(name, full)) for name, full in zip(names, whole, strict=True)]
    shown = list(range(len(names)))
    for name in droppable:
        if _measure_line(widths, shown) > width:
            shown.remove(names.index(name))
    spare = max(0, width - _measure_line(widths, shown))
    for index in shown:
        more = min(spare, whole[index] - widths[index])
        # A time that is cut in half misleads: it is whole, or only its date.
        if least.get(names[index]) != DATE or more == whole[index] - widths[index]:
            widths[index] += more
            spare -= more
    cells = [[_cut_cell(row[index], widths[index], least.get(names[index]) == DATE) for index in shown] for row in rows]
    table = format_table(cells, [names[index] for index in shown], max(width, _measure_line(widths, shown)))
    left_out = [name for index, name in enumerate(names) if index not in shown]
    if not left_out or not sys.stdout.isatty():
        return table
    return table + "\n" + wrap_text(f"left out: {', '.join(left_out)}; output=json shows all", width)


def _measure_line(widths: Sequence[int], shown: Sequence[int]) -> int:
    """Return the width of a line: two spaces between columns, none after the last."""
    return sum(widths[index] + 2 for index in shown) - 2


def _cut_cell(cell: object, width: int, is_date: bool) -> object:
    text = str(cell)
    if cell is None or measure_width(text) <= width:
        return cell
    return text[:width] if is_date else text[: width - 1] + "…"
