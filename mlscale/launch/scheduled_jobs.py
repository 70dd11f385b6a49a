"""Jobs of runs, whatever started them: their states, the status of a run that follows, and what they exclude."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlscale.errors import MLScaleError
from mlscale.launch.cloud import JobClient
from mlscale.launch.job_environment import is_job_of
from mlscale.launch.job_state import JobState
from mlscale.launch.kubernetes import KubectlClient
from mlscale.launch.skypilot import SkyClient
from mlscale.launch.slurm.job_states import find_slurm_states
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import JobRecord, read_job_record

CLIENTS: dict[str, JobClient] = {"kubernetes": KubectlClient(), "skypilot": SkyClient()}
"""The clients of platforms on which runs have a file system of their own."""
WRITTEN = "written"
"""The state of a job whose file was written, and which was not submitted from here."""


def find_job_states(records: Iterable[JobRecord]) -> dict[str, JobState]:
    """Return the states of jobs by their ids; `unknown` with the reason where a scheduler does not respond."""
    by_scheduler: dict[str, list[JobRecord]] = {}
    for record in records:
        by_scheduler.setdefault(record.scheduler, []).append(record)
    states = find_slurm_states(by_scheduler.pop("slurm", []))
    for scheduler, wanted in by_scheduler.items():
        states |= _find_cloud_states(scheduler, wanted)
    return states


def _find_cloud_states(scheduler: str, records: Sequence[JobRecord]) -> dict[str, JobState]:
    states = {record.id: JobState(WRITTEN, "it was not submitted from here") for record in records}
    submitted = [record for record in records if record.is_submitted]
    if not submitted:
        return states
    try:
        return states | CLIENTS[scheduler].list_states(submitted)
    # A later version's scheduler, or a machine without the client: the runs can be listed all the same.
    except KeyError:
        reason = f"jobs of {scheduler} are unknown to this version of mlscale"
    except MLScaleError as error:
        reason = error.what
    return states | {record.id: JobState("unknown", reason) for record in submitted}


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
        if state.word in ("unknown", "elsewhere"):
            return status
        if record.cancelled:
            return "cancelled"
        # On other platforms the job's own run is on the volume, and what the platform reports is all there is.
        has_crashed = record.scheduler == "slurm" and state.word in ("ended", "failed")
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


def refuse_cloud_run(run: RunFolder) -> None:
    """Raise an error if a run is trained on a platform with its own file system: its checkpoints are there, not here.

    Raises:
        MLScaleError: it is.
    """
    record = read_job_record(run.path)
    client = CLIENTS.get(record.scheduler) if record else None
    if client is not None:
        raise MLScaleError(
            f"the run {run.path.name} is trained by a job on {client.platform}",
            where=str(run.path),
            why="its checkpoints are on that platform's volume: here it would restart, next to the job",
            fix=f"mlscale runs resume {run.id} which submits the job again\nmlscale like={run.id}, a new run, here",
        )
