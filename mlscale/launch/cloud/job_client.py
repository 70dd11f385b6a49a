"""The interface of a platform's client, such as kubectl: its commands, and the states of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mlscale.launch.job_state import JobState
from mlscale.runs.job_record import JobRecord

ADDRESS_SECONDS = 30.0
"""The longest wait for a client that only looks something up."""


class JobClient(Protocol):
    """The client of a platform.

    Attributes:
        program: its command.
        platform: the name of the platform, for messages.
        file: the job's file in the run folder.
    """

    program: str
    platform: str
    file: str

    def read_cluster(self) -> str:
        """Return a name of the cluster to which jobs are submitted."""

    def build_submit_words(self, path: Path, variables: Sequence[str], cluster: str = "") -> list[str]:
        """Return the command that submits the job of a file.

        Args:
            path: the file.
            variables: names of secrets that it passes from this environment.
            cluster: of an earlier submission; empty for the client's current one.
        """

    def build_prepare_words(self, record: JobRecord) -> list[str]:
        """Return the command that makes way for another submission of a job; empty where none is needed."""

    def build_log_words(self, record: JobRecord, *, follow: bool) -> list[str]:
        """Return the command that prints the log of a job."""

    def build_cancel_words(self, record: JobRecord) -> list[str]:
        """Return the command that cancels a job."""

    def list_states(self, records: Sequence[JobRecord]) -> dict[str, JobState]:
        """Return the states of jobs by their ids.

        Raises:
            MLScaleError: the client fails (exit code 5).
        """
