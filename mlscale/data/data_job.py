"""The job that takes batches: its ranks and limits."""

from __future__ import annotations

import os
from typing import Protocol

from mlscale.errors import MLScaleError


class Job(Protocol):
    """The job that takes the batches: Lightning's Trainer, or a loop of one's own (`mlscale.data.Loader`)."""

    @property
    def world_size(self) -> int:
        """The number of ranks."""

    @property
    def global_rank(self) -> int:
        """The rank of this process."""

    @property
    def num_devices(self) -> int:
        """The number of ranks on this machine."""

    @property
    def accumulate_grad_batches(self) -> int:
        """The number of forward passes of an optimizer step."""

    @property
    def limit_train_batches(self) -> int | float | None:
        """The batches of an epoch: a number, or as a float a part of them; None for all."""

    @property
    def is_global_zero(self) -> bool:
        """True in the first rank, which reports."""


def count_local_ranks(job: Job | None) -> int:
    """Return the number of ranks that share this machine."""
    # LOCAL_WORLD_SIZE is set by torchrun.
    return max(1, job.num_devices if job is not None else int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def check_workers(workers: object) -> None:
    """Raise if `data.workers` is neither a number nor 'auto'.

    Raises:
        MLScaleError: it is not.
    """
    # bool is a subclass of int, so `true` would count as 1.
    if workers != "auto" and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 0):
        raise MLScaleError(
            f"data.workers is {workers!r}",
            where="data.workers",
            why="it is a number from 0, or auto",
            fix="data.workers=auto",
        )
