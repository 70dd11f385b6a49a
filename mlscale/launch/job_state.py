"""The state of a job, as its scheduler reports it."""

from __future__ import annotations

from dataclasses import dataclass

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
