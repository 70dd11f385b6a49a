"""The states of jobs: from squeue, for ended jobs from scontrol, and from sacct where the cluster has accounting."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mlscale.errors import MLScaleError
from mlscale.launch.job_environment import is_job_of
from mlscale.launch.slurm.slurm_commands import read_cluster_name, run_slurm
from mlscale.runs.folder import RunFolder
from mlscale.runs.job_record import JobRecord, read_job_record

_MAX_ENDED = 100  # jobs that are looked up one by one
_PENDING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
_RUNNING = frozenset(
    {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
)
_ENDED = {
    "CANCELLED": "cancelled",
    "COMPLETED": "ended",
    "TIMEOUT": "timed out",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node failed",
    "PREEMPTED": "preempted",
}
VANISHED = "vanished"
"""The state of a job that its cluster does not know any more."""


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes:
        word: queued, running, cancelled, timed out, failed, …; vanished; or elsewhere, for a job of another cluster.
        reason: why it waits, as SLURM words it.
    """

    word: str
    reason: str = ""

    @property
    def is_live(self) -> bool:
        """True while it waits or runs."""
        return self.word in ("queued", "running")


def find_job_states(records: Iterable[JobRecord]) -> dict[str, JobState]:
    """Return the states of jobs by their ids; `unknown` with the reason where SLURM does not respond."""
    wanted = list(records)
    if not wanted:
        return {}
    try:
        cluster = read_cluster_name()
        live = _list_live_jobs()
    except MLScaleError as error:
        # Also on a machine without SLURM: the runs can be listed all the same.
        return {record.id: JobState("unknown", error.what) for record in wanted}
    states: dict[str, JobState] = {}
    looked_up = 0
    for record in wanted:
        if record.cluster != cluster:
            states[record.id] = JobState("elsewhere", f"on the cluster {record.cluster}")
        elif record.id in live:
            states[record.id] = live[record.id]
        else:
            looked_up += 1
            states[record.id] = _find_ended_job(record.id) if looked_up <= _MAX_ENDED else JobState(VANISHED)
    return states


def _list_live_jobs() -> dict[str, JobState]:
    """Return the jobs of this user that wait or run. With -r every task of an array has a line."""
    return parse_queue(run_slurm(["squeue", "--me", "--noheader", "-r", "-o", "%i|%T|%r"]))


def parse_queue(text: str) -> dict[str, JobState]:
    """Return the states in the lines `id|state|reason`."""
    rows = (line.strip().split("|", 2) for line in text.splitlines() if line.count("|") >= 2)
    return {job: _make_state(state, reason) for job, state, reason in rows}


def _make_state(state: str, reason: str = "") -> JobState:
    name = state.split()[0].rstrip("+") if state.split() else ""
    if name in _PENDING:
        return JobState("queued", "" if reason == "None" else reason)
    if name in _RUNNING:
        return JobState("running")
    return JobState(_ENDED.get(name, "failed"))


def _find_ended_job(job: str) -> JobState:
    # The controller forgets a job some minutes after its end (MinJobAge).
    with contextlib.suppress(MLScaleError):
        return parse_job_record(run_slurm(["scontrol", "show", "job", "-o", job]))
    with contextlib.suppress(MLScaleError):
        first = run_slurm(["sacct", "-n", "-X", "-P", "-D", "-o", "State", "-j", job]).strip().splitlines()
        if first:  # with -D one line for each start of a requeued job, the last one last
            return _make_state(first[-1])
    return JobState(VANISHED)


def parse_job_record(text: str) -> JobState:
    """Return the state in what `scontrol show job -o` prints.

    Raises:
        MLScaleError: it names none.
    """
    match = re.search(r"\bJobState=(\S+)", text)
    if not match:
        raise MLScaleError("scontrol shows no state of the job", why=text[:80], fix="scontrol show job")
    reason = re.search(r"\bReason=(\S+)", text)
    return _make_state(match[1], reason[1] if reason else "")


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
        return "crashed" if state.word in ("ended", "failed") else state.word
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
            fix=f"mlscale runs logs {run.id} shows how it stands; mlscale runs cancel {run.id} ends it",
        )
