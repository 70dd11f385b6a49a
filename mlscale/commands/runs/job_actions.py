"""What `mlscale runs` does with the jobs of runs: their status, their log, and cancelling them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mlscale.errors import Exit, MLScaleError
from mlscale.launch.scheduled_jobs import describe_run_status, find_job_states, refuse_cloud_run, refuse_live_job
from mlscale.launch.slurm.slurm_commands import cancel_job
from mlscale.runs.folder import RunFolder
from mlscale.runs.host import processes as process
from mlscale.runs.identity import get_current_time
from mlscale.runs.job_record import JOB, JobRecord, get_sealed_sentence, read_job_record

NOT_SUBMITTED = "not submitted"
_FINAL = ("done", "diverged")  # no job changes these any more
_POLL_SECONDS = 1.0
_STATE_SECONDS = 5.0  # between two requests to the scheduler


def find_run_statuses(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Return the status of each run by its id; for those with a job, as its cluster reports it."""
    statuses = {run.id: _read_status(run) for run in runs}
    records = {run.id: record for run in runs if statuses[run.id] not in _FINAL and (record := _read_record(run))}
    states = find_job_states(records.values())
    for run_id, record in records.items():
        statuses[run_id] = describe_run_status(statuses[run_id], record, states[record.id])
    return statuses


def _read_status(run: RunFolder) -> str:
    """Return the status of a run's folder; `not submitted` where the command that was to submit it has ended before."""
    status = run.status
    # The record last: it is there by then, if a command that has ended had submitted the job.
    has_ended = status == "queued" and process.get_process_state(run.run["attempts"][-1]) == "crashed"
    return NOT_SUBMITTED if has_ended and not (run.path / JOB).exists() else status


def _read_record(run: RunFolder) -> JobRecord | None:
    try:
        return read_job_record(run.path)
    except MLScaleError:  # a corrupt record must not hide all other runs
        return None


def cancel_runs(runs: Sequence[RunFolder]) -> list[str]:
    """Cancel the jobs of runs; return a line for each.

    Raises:
        MLScaleError: one of them has no job, or has ended, or its job is of another cluster; then none is cancelled.
    """
    records = {run.id: _require_record(run, "cancel") for run in runs}
    states = find_job_states(records.values())
    # All are checked before the first is cancelled: half of a list would be hard to take back.
    for run in runs:
        state = states[records[run.id].id]
        if not state.is_live:
            word = state.reason if state.word in ("elsewhere", "unknown") else state.word
            raise MLScaleError(
                f"job {records[run.id].id} of the run {run.path.name} can't be cancelled: {word}",
                where=str(run.path),
                fix=f"mlscale runs show {run.id}",
            )
    lines = []
    for run in runs:
        record = records[run.id]
        cancel_job(record.id)
        # Read again: the job may have written its record meanwhile.
        replace(_require_record(run, "cancel"), cancelled=get_current_time()).write(run.path)
        lines.append(f"cancelled job {record.id} of {run.path.name}")
    return lines


def find_live_jobs(runs: Sequence[RunFolder]) -> Iterator[MLScaleError]:
    """Yield an error for each run whose job waits or runs."""
    for run in runs:
        try:
            refuse_live_job(run)
        except MLScaleError as error:
            yield error


def print_log(run: RunFolder, *, follow: bool) -> int:
    """Print the log of a run's job; with `follow` until the job ends. Return the exit code.

    Raises:
        MLScaleError: the run has no job.
    """
    record = _require_record(run, "logs")
    path = Path(record.log)
    position, checked = 0, time.monotonic()
    state = find_job_states([record])[record.id]
    if not path.is_file():
        print(f"job {record.id} is {state.word}{f' ({state.reason})' if state.reason else ''}", file=sys.stderr)
    while True:
        # Read before the state is asked for: a job that has ended writes nothing after it.
        position = _print_new_text(path, position)
        if not follow or not state.is_live:
            return int(Exit.DONE)
        time.sleep(_POLL_SECONDS)
        if time.monotonic() - checked > _STATE_SECONDS:
            checked, state = time.monotonic(), find_job_states([record])[record.id]


def collect_log(run: RunFolder, *, follow: bool) -> dict[str, object]:
    """Return the log of a run's job as a document: the run, the job, its state, and the lines; with `follow` once the
    job has ended.

    Raises:
        MLScaleError: the run has no job.
    """
    record = _require_record(run, "logs")
    state = find_job_states([record])[record.id]
    while follow and state.is_live:
        time.sleep(_STATE_SECONDS)
        state = find_job_states([record])[record.id]
    path = Path(record.log)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return {"run": str(run.path), "job": record.id, "state": state.word, "lines": text.splitlines()}


def _print_new_text(path: Path, position: int) -> int:
    """Print what a file has after `position`; return its new end."""
    try:
        with path.open("rb") as file:
            file.seek(position)
            content = file.read()
    # A job that waits has no log yet.
    except FileNotFoundError:
        return position
    sys.stdout.write(content.decode("utf-8", errors="replace"))
    sys.stdout.flush()
    return position + len(content)


def _require_record(run: RunFolder, action: str) -> JobRecord:
    refuse_cloud_run(run, action)
    record = read_job_record(run.path)
    if record is None:
        raise MLScaleError(
            f"the run {run.path.name} was not submitted to a scheduler",
            where=str(run.path),
            why="its processes were started on a machine by hand, and printed there",
            fix=f"mlscale runs show {run.id}",
        )
    return record


def find_end_cause(run: RunFolder, record: JobRecord) -> str:
    """Return why the last start of a job that has ended did so: the run's own words, else what the job recorded."""
    if record.stopped or not record.starts:
        return record.stopped
    last = record.close_silent_starts().starts[-1]
    return get_sealed_sentence(run.manifest, last.started) or last.cause


def describe_job(run: RunFolder, status: str) -> list[tuple[str, object]]:
    """Return rows about the job of a run, which has this status, for `runs show`; none without a job."""
    record = _read_record(run)
    if record is None:
        return []
    where = f"{record.id} of {record.cluster}" if record.is_submitted else f"{record.id}, not submitted from here"
    rows: list[tuple[str, object]] = [("job", where)]
    if record.log:
        rows.append(("log", os.path.relpath(record.log)))
    # A job that is not there any more is not running, even if nothing could report its end.
    unreported = "running" if status in ("running", "elsewhere") else find_end_cause(run, record)
    for number, start in enumerate((*record.earlier, *record.starts), 1):
        about = f"job {start.job} on {start.nodes}, step {start.step}: {start.cause or unreported}"
        rows.append((f"start {number}", about))
    return [*rows, *([("stopped", record.stopped)] if record.stopped else [])]
