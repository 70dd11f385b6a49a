"""`mlscale runs ls`: the runs of a folder, newest first, those of a sweep together."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from mlscale.commands.fitted_table import DATE, format_fitted_table
from mlscale.commands.options import Options
from mlscale.commands.runs.job_actions import find_run_statuses
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit
from mlscale.report import format_duration, format_number
from mlscale.runs.find import find_corrupted_runs, list_runs
from mlscale.runs.overview import RunOverview, group_by_sweep, parse_sweep_id, summarize_run
from mlscale.runs.sweep_folder import FailedJob, find_sweep_folders, read_failed_jobs

_COLUMNS = ("id", "name", "started", "status", "metric", "time", "overrides")
# What a narrow terminal goes without, in this order, and widths that are still worth showing; ids stay whole.
_DROPPABLE_COLUMNS = ("overrides", "time", "started", "name", "metric")
_LEAST_WIDTHS = {"name": 8, "started": DATE, "overrides": 12}


def show_run_list(options: Options) -> int:
    """Print the runs as a table, or for programs; return the exit code."""
    # Limited before the overviews, which read several files of each run.
    folders = list_runs(options.runs_dir)[: options.limit or None]
    statuses = find_run_statuses(folders)
    runs = [replace(summarize_run(run), status=statuses[run.id]) for run in folders]
    broken = find_corrupted_runs(options.runs_dir)
    groups = group_by_sweep(runs)
    failed = _find_failed_jobs(options, {sweep for sweep, _ in groups if sweep})
    if options.output == "json":
        reasons = {str(path): why for path, why in broken.items()}
        listed = [{"sweep": sweep, **asdict(job)} for sweep, jobs in failed.items() for job in jobs]
        print_document("runs-ls", {"runs": [asdict(run) for run in runs], "damaged": reasons, "failed_jobs": listed})
        return int(Exit.DONE)
    if not runs and not failed:
        print(f"no runs in {options.runs_dir}; mlscale +recipe=resnet makes one")
    rows: list[Sequence[object]] = []
    # The runs of a sweep are listed together, at the place of its newest run.
    for sweep, members in [*((sweep, []) for sweep in failed if sweep not in dict(groups)), *groups]:
        if sweep:
            rows.append(_format_sweep_row(sweep, members, failed.get(sweep, ())))
        # Indented below the line of their sweep.
        rows += [_format_run_row(member, "  " if sweep else "") for member in members]
        rows += [_format_job_row(job) for job in failed.get(sweep or "", ())]
    if rows:
        print(format_fitted_table(rows, _COLUMNS, _LEAST_WIDTHS, _DROPPABLE_COLUMNS))
    for sweep, jobs in failed.items():
        for job in jobs:
            print(f"failed: job {job.job} of {parse_sweep_id(sweep)} ({job.error})", file=sys.stderr)
    for path, why in broken.items():
        print(f"corrupt: {path} ({why})", file=sys.stderr)
    return int(Exit.DONE)


def _find_failed_jobs(options: Options, shown: set[str]) -> dict[str, list[FailedJob]]:
    """Return the jobs that failed before they had a run, by the folder of their sweep, which may have no run at all."""
    folders = map(str, find_sweep_folders(options.runs_dir))
    # With a limit only the sweeps of the runs that are shown.
    failed = {path: read_failed_jobs(path) for path in folders if path in shown or not options.limit}
    return {path: jobs for path, jobs in failed.items() if jobs}


def _format_sweep_row(sweep: str, members: Sequence[RunOverview], failed: Sequence[FailedJob]) -> Sequence[object]:
    states = [*(member.status for member in members), *("failed" for _ in failed)]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    started = format_date(members[-1].created) if members else None
    return (parse_sweep_id(sweep), f"sweep of {len(states)}", started, counts, None, None, "")


def _format_job_row(job: FailedJob) -> Sequence[object]:
    return (f"  job {job.job}", "no run", None, "failed", None, None, " ".join(job.overrides))


def _format_run_row(run: RunOverview, indent: str) -> Sequence[object]:
    value = f"{run.metric} {format_number(run.value)}" if run.value is not None else None
    took = format_duration(run.duration_s) if run.duration_s is not None else None
    return (indent + run.id, run.name, format_date(run.created), run.status, value, took, " ".join(run.overrides))


def format_date(created: str) -> str:
    """Return the date and the minute of a time in ISO 8601."""
    return created[:16].replace("T", " ")
