"""The states of jobs: from squeue, for ended jobs from scontrol, and from sacct where the cluster has accounting.

The state of a job, as its scheduler reports it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mlscale.errors import MLScaleError
from mlscale.launch.slurm.slurm_commands import read_cluster_name, run_slurm
from mlscale.runs.job_record import JobRecord

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


def find_slurm_states(records: Iterable[JobRecord]) -> dict[str, JobState]:
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
        raise MLScaleError(
            "scontrol shows no state of the job", where="scontrol show job -o", why=text[:80], fix="scontrol show job"
        )
    reason = re.search(r"\bReason=(\S+)", text)
    return _make_state(match[1], reason[1] if reason else "")


VANISHED = "vanished"
"""The state of a job that its cluster does not know any more."""


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes:
        word: queued, running, requeued, done, cancelled, timed out, failed, …; vanished; unknown; or elsewhere, for a
            job of another cluster.
        reason: why it waits, as the scheduler words it.
    """

    word: str
    reason: str = ""

    @property
    def is_live(self) -> bool:
        """True while it waits or runs."""
        return self.word in ("queued", "running", "requeued")
