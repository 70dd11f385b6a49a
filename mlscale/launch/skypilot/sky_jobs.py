"""Managed jobs of SkyPilot by sky: submission, state, log, end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mlscale.launch.cloud.client_command import run_client
from mlscale.launch.cloud.job_client import ADDRESS_SECONDS
from mlscale.launch.job_state import VANISHED, JobState
from mlscale.runs.job_record import JobRecord

# Words for `sky.jobs.ManagedJobStatus`; all kinds of FAILED are failed.
_WORDS = {
    "PENDING": "queued", "SUBMITTED": "queued", "STARTING": "queued", "RUNNING": "running", "WINDING_DOWN": "running",
    "RECOVERING": "requeued", "CANCELLING": "running", "SUCCEEDED": "done", "CANCELLED": "cancelled",
}  # fmt: skip


class SkyClient:
    """sky. The id of a job is its name, which has the id of its run; it is the same for every submission."""

    program, platform, file = "sky", "SkyPilot", "skypilot.yaml"

    def read_cluster(self) -> str:
        """Return a name for SkyPilot's own list of jobs; which clouds it uses, it decides later."""
        return "skypilot"

    def build_submit_words(self, path: Path, variables: Sequence[str], cluster: str = "") -> list[str]:
        secrets = [f"--secret={name}" for name in variables]
        return [self.program, "jobs", "launch", "--yes", "--detach-run", *secrets, str(path)]

    def build_prepare_words(self, record: JobRecord) -> list[str]:
        return []

    def build_log_words(self, record: JobRecord, *, follow: bool) -> list[str]:
        return [self.program, "jobs", "logs", f"--name={record.id}", "--follow" if follow else "--no-follow"]

    def build_cancel_words(self, record: JobRecord) -> list[str]:
        return [self.program, "jobs", "cancel", f"--name={record.id}", "--yes"]

    def build_queue_words(self) -> list[str]:
        """Return the command that lists all jobs."""
        return [self.program, "jobs", "queue", "--all", "--output=json"]

    def list_states(self, records: Sequence[JobRecord]) -> dict[str, JobState]:
        reported = parse_job_queue(run_client(self.build_queue_words(), ADDRESS_SECONDS))
        return {record.id: reported.get(record.id, JobState(VANISHED)) for record in records}


def parse_job_queue(text: str) -> dict[str, JobState]:
    """Return the states of the jobs in what `sky jobs queue --output=json` prints, by their names."""
    # Jobs of one name are submissions of one run: the last one counts, whatever the order of the list.
    jobs = sorted(json.loads(text), key=lambda job: job["job_id"])
    return {job["job_name"]: _read_state(str(job["status"]), str(job.get("failure_reason") or "")) for job in jobs}


def _read_state(status: str, reason: str) -> JobState:
    # The JSON has the value of the enumeration; a version that writes its name does not hide the job.
    name = status.rpartition(".")[2]
    return JobState(_WORDS.get(name, "failed" if name.startswith("FAILED") else "unknown"), reason)
