"""Jobs of runs, whatever started them: their states, the status of a run that follows, and what they exclude."""

from __future__ import annotations

from collections.abc import Iterable

from mlscale.errors import MLScaleError
from mlscale.launch.cloud import PLATFORMS
from mlscale.launch.job_environment import is_job_of
from mlscale.launch.slurm.job_states import JobState, find_slurm_states
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import JobRecord, read_job_record

SUBMITTED, WRITTEN = "submitted", "written"
"""The states of a job on a cloud: its client alone knows more; a job's file that was written and not submitted here."""


def find_job_states(records: Iterable[JobRecord]) -> dict[str, JobState]:
    """Return the states of jobs by their ids; `unknown` with the reason where SLURM does not respond."""
    records = list(records)
    states = find_slurm_states([record for record in records if record.scheduler == "slurm"])
    clouds = [record for record in records if record.scheduler != "slurm"]
    return states | {record.id: JobState(SUBMITTED if record.is_submitted else WRITTEN) for record in clouds}


def describe_run_status(status: str, record: JobRecord, state: JobState) -> str:
    """Return the status of a run with a job.

    Args:
        status: of its folder: queued, or what the run has recorded.
        record: of its job.
        state: of its job.
    """
    if state.is_live:
        return "requeued" if state.word == "queued" and record.starts else state.word
    if status in ("queued", "running", "elsewhere", "crashed"):
        # The folder can't know that the job has ended: its end was not recorded.
        if state.word in ("unknown", "elsewhere") and not record.stopped:
            return status
        if record.cancelled:
            return "cancelled"
        has_crashed = record.stopped or (record.scheduler == "slurm" and state.word in ("ended", "failed"))
        return "crashed" if has_crashed else state.word
    return status


def refuse_live_job(run: RunFolder) -> None:
    """Raise an error if the job of a run waits or runs, unless this process is in it.

    Raises:
        MLScaleError: it does.
    """
    record = read_job_record(run.path)
    if record is None or record.cancelled or is_job_of(run.path):
        return
    state = find_job_states([record])[record.id]
    if state.is_live:
        raise MLScaleError(
            f"job {record.id} of the run {run.path.name} is {state.word}",
            where=str(run.path),
            why="two processes must not train one run",
            fix=f"mlscale runs logs {run.id}, which shows how it stands\nmlscale runs cancel {run.id}, which ends it",
        )


def refuse_cloud_run(run: RunFolder, action: str = "resume") -> None:
    """Raise an error if a run is trained on a platform with its own file system: its checkpoints are there, not here.

    Args:
        run: the run.
        action: resume, logs or cancel: what the platform's client does, and this process can't.

    Raises:
        MLScaleError: it is.
    """
    record = read_job_record(run.path)
    platform = PLATFORMS.get(record.scheduler) if record else None
    if record is not None and platform is not None:
        raise MLScaleError(
            f"the run {run.path.name} is trained by a job on {platform.name}",
            where=str(run.path),
            why="its log, state and checkpoints are on that platform: a run that is resumed here would restart",
            fix=platform.format_command(action, record, run.path)
            + (f"\nmlscale like={run.id}, a new run, here" if action == "resume" else ""),
        )
