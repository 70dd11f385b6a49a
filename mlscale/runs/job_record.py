"""The record of a run's job: `job.json` in the run folder, with the scheduler's id and every start of the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlscale.atomic_files import read_json, write_json
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.runs.identity import get_current_time

JOB = "job.json"
SCRIPT, LOG, CODE_FOLDER = "job.sh", "logs/job.log", "code"
UNSEALED = (JOB, SCRIPT, LOG, f"{CODE_FOLDER}/", "results/launch.")
"""Beginnings of the paths in a run folder that a job writes after the run is sealed, or that are copies."""
CLOUD_SCHEDULERS = frozenset({"kubernetes", "skypilot"})
"""Schedulers whose jobs have a file system of their own: the run folder here only describes the job."""
# Exit codes of a job that was stopped from outside: by Ctrl-C, by the scheduler's or a user's SIGTERM.
_STOPPED_CODES = (130, 143)


@dataclass(frozen=True)
class JobStart:
    """One start of a job by the scheduler.

    Attributes:
        job: the id of the job.
        restart: how often the scheduler had requeued the job before.
        nodes: the machines, as the scheduler lists them.
        started, ended: times, ISO 8601; `ended` is None while it runs, and where nothing could report its end.
        step: the optimizer step that was saved when it started.
        code: its exit code; None where nothing could report it.
        cause: why it ended, in words.
    """

    job: str
    restart: int
    nodes: str
    started: str
    step: int
    ended: str | None = None
    code: int | None = None
    cause: str = ""

    @property
    def has_failed(self) -> bool:
        """True unless it ended well, or was stopped from outside."""
        return self.code not in (0, *_STOPPED_CODES)


@dataclass(frozen=True)
class JobRecord:
    """The job of a run.

    Attributes:
        scheduler: slurm, kubernetes or skypilot.
        cluster: the name of the cluster; an id means another job on another one. Empty for a job whose file was
            written and not submitted.
        id: of the last submission; `12_3` for a task of an array, `<namespace>/<name>` on Kubernetes.
        submitted: when, ISO 8601.
        log: the file with the job's output; empty where the platform keeps it.
        max_requeues: how often the job may be requeued.
        max_failures: failures in a row without a new checkpoint, after which it stops.
        variables: names of the environment variables that the run's config needs.
        starts: of this submission, the first one first.
        earlier: the starts of earlier submissions.
        cancelled: when `mlscale runs cancel` cancelled it.
        stopped: why it was not requeued any more; empty where that did not happen.
    """

    scheduler: str
    cluster: str
    id: str
    submitted: str
    log: str
    max_requeues: int
    max_failures: int
    variables: tuple[str, ...] = ()
    starts: tuple[JobStart, ...] = ()
    earlier: tuple[JobStart, ...] = ()
    cancelled: str | None = None
    stopped: str = ""

    @property
    def is_submitted(self) -> bool:
        """True unless only the job's file was written."""
        return bool(self.cluster)

    def write(self, folder: Path) -> None:
        """Write it into the run folder."""
        write_json(folder / JOB, {"format": get_format_tag("job"), **asdict(self)})

    def add_start(self, start: JobStart) -> JobRecord:
        """Return the record with another start; of one before it whose end nothing reported, the cause is filled in."""
        return replace(self, starts=(*self.close_silent_starts().starts, start))

    def close_silent_starts(self) -> JobRecord:
        """Return the record with a cause for every start whose end nothing could report."""
        silent = "ended without a report: its node failed, or it was killed or preempted without notice"
        starts = (
            replace(start, cause=silent) if start.ended is None and not start.cause else start for start in self.starts
        )
        return replace(self, starts=tuple(starts))

    def end_last_start(self, code: int, cause: str) -> JobRecord:
        """Return the record with the end of the last start."""
        if not self.starts:
            return self
        last = replace(self.starts[-1], ended=get_current_time(), code=code, cause=cause)
        return replace(self, starts=(*self.starts[:-1], last))

    def list_vain_starts(self, step: int) -> list[JobStart]:
        """Return the last starts in a row that failed and saved nothing new, with `step` saved now."""
        vain: list[JobStart] = []
        after = step
        # Backwards, because a start that saved something ends the row of failures.
        for start in reversed(self.starts):
            if start.step < after or not start.has_failed:
                break
            vain.insert(0, start)
            after = start.step
        return vain


def read_job_record(folder: Path) -> JobRecord | None:
    """Return the record of a run's job; None for a run that was not submitted.

    Raises:
        MLScaleError: it is corrupt, or of a later format.
    """
    path = folder / JOB
    if not path.is_file():
        return None
    document = read_json(path)
    expect_format("job", document, str(path))
    starts = {key: _parse_starts(document.get(key, ())) for key in ("starts", "earlier")}
    return JobRecord(**_select_fields(JobRecord, document) | starts)


def get_sealed_sentence(manifest: Mapping[str, Any] | None, since: str) -> str:
    """Return why a run ended, in its own words; empty where its seal is older than `since`, an ISO 8601 time."""
    # The seal may be that of an earlier start: a process that is killed while it starts leaves it.
    if not manifest or not manifest.get("sentence") or manifest["ended"] < since:
        return ""
    return str(manifest["sentence"]).splitlines()[0]


def is_cloud_run(folder: Path) -> bool:
    """Return True if the run of a folder is trained on another file system, where its checkpoints are."""
    try:
        record = read_job_record(folder)
    except MLScaleError:  # corrupt: what may be of use here is not hidden
        return False
    return record is not None and record.scheduler in CLOUD_SCHEDULERS


def _parse_starts(starts: Sequence[Mapping[str, Any]]) -> tuple[JobStart, ...]:
    return tuple(JobStart(**_select_fields(JobStart, start)) for start in starts)


def _select_fields(record: type, document: Mapping[str, Any]) -> dict[str, Any]:
    # Keys may be added at any time, so unknown ones are left out.
    known = record.__dataclass_fields__  # type: ignore[attr-defined]
    values = {name: value for name, value in document.items() if name in known}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
