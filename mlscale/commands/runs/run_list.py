"""`mlscale runs ls`: the runs of a folder, newest first, those of a sweep together."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from mlscale.commands.options import Options
from mlscale.commands.runs.job_actions import find_run_statuses
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit
from mlscale.report import format_duration, format_number, format_table
from mlscale.report.text import measure_width
from mlscale.runs.find import find_corrupted_runs, list_runs
from mlscale.runs.overview import RunOverview, group_by_sweep, parse_sweep_id, summarize_run

_COLUMNS = ("id", "name", "started", "status", "metric", "time", "overrides")
_DROPPABLE_COLUMNS = ("overrides", "time", "started", "metric")  # what a narrow terminal goes without, in this order
_MIN_COLUMN_WIDTH = 12  # characters of a name or of the overrides that are still worth showing


def show_run_list(options: Options) -> int:
    """Print the runs as a table, or for programs; return the exit code."""
    # Limited before the overviews, which read several files of each run.
    folders = list_runs(options.runs_dir)[: options.limit or None]
    statuses = find_run_statuses(folders)
    runs = [replace(summarize_run(run), status=statuses[run.id]) for run in folders]
    broken = find_corrupted_runs(options.runs_dir)
    if options.output == "json":
        reasons = {str(path): why for path, why in broken.items()}
        print_document("runs-ls", {"runs": [asdict(run) for run in runs], "damaged": reasons})
        return int(Exit.DONE)
    if not runs:
        print(f"no runs in {options.runs_dir}; mlscale +recipe=resnet makes one")
    rows: list[Sequence[object]] = []
    # The runs of a sweep are listed together, at the place of its newest run.
    for sweep, members in group_by_sweep(runs):
        if sweep:
            states = [member.status for member in members]
            counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
            rows.append(
                (
                    parse_sweep_id(sweep),
                    f"sweep of {len(members)}",
                    format_date(members[-1].created),
                    counts,
                    None,
                    None,
                    "",
                )
            )
        # Indented below the line of their sweep.
        rows += [_format_run_row(member, "  " if sweep else "") for member in members]
    if rows:
        # Without a terminal (a pipe, a file) nothing is shortened.
        print(_fit_columns(rows, _COLUMNS, shutil.get_terminal_size(fallback=(10_000, 24)).columns))
    for path, why in broken.items():
        print(f"corrupt: {path} ({why})", file=sys.stderr)
    return int(Exit.DONE)


def _fit_columns(rows: Sequence[Sequence[object]], names: Sequence[str], width: int) -> str:
    """Return the table with the columns that fit into `width`. Names and overrides are shortened, ids never."""
    whole = [max(measure_width(str(cell)) for cell in column) for column in zip(names, *rows, strict=True)]
    least = [
        min(spare, _MIN_COLUMN_WIDTH) if name in ("name", "overrides") else spare
        for name, spare in zip(names, whole, strict=True)
    ]
    shown = list(range(len(names)))
    for dropped in _DROPPABLE_COLUMNS:
        # Two spaces between columns, none after the last.
        if sum(least[index] + 2 for index in shown) - 2 > width:
            shown.remove(names.index(dropped))
    spare = max(0, width - sum(least[index] + 2 for index in shown) + 2)
    cut = {}
    for index in shown:
        cut[index] = min(whole[index], least[index] + spare)
        spare -= cut[index] - least[index]
    cells = [[_cut_cell(row[index], cut[index]) for index in shown] for row in rows]
    return format_table(cells, [names[index] for index in shown], max(width, sum(cut.values()) + 2 * len(cut)))


def _cut_cell(cell: object, width: int) -> object:
    text = str(cell)
    return cell if cell is None or measure_width(text) <= width else text[: width - 1] + "…"


def _format_run_row(run: RunOverview, indent: str) -> Sequence[object]:
    value = f"{run.metric} {format_number(run.value)}" if run.value is not None else None
    took = format_duration(run.duration_s) if run.duration_s is not None else None
    return (indent + run.id, run.name, format_date(run.created), run.status, value, took, " ".join(run.overrides))


def format_date(created: str) -> str:
    """Return the date and the minute of a time in ISO 8601."""
    return created[:16].replace("T", " ")
