"""Write a checkpoint by a thread, from a copy of the state, while the training continues."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.train.checkpoint.host_copy import HostCopier


@dataclass
class SaveInFlight:
    """A save that the thread has not concluded.

    Attributes:
        target, record: of the checkpoint.
        writing: done once it is committed, or has failed.
        removals: of the checkpoints that it replaces.
    """

    target: Path
    record: CheckpointRecord
    writing: Future[None]
    removals: list[Future[None]] = field(default_factory=list)


class BackgroundWriter:
    """A thread that writes one checkpoint at a time, and then removes those that it replaces.

    Attributes:
        cpu_seconds: CPU time that the thread took to write the last one; valid once that is concluded.
    """

    def __init__(self) -> None:
        self._copier = HostCopier()
        self._thread: ThreadPoolExecutor | None = None
        self._save: SaveInFlight | None = None
        self.cpu_seconds = 0.0

    @property
    def is_busy(self) -> bool:
        """True from the start of a save until `wait_for_save`."""
        return self._save is not None

    @property
    def target(self) -> Path | None:
        """The checkpoint of the save in flight; None where nothing is in flight."""
        return self._save.target if self._save is not None else None

    @property
    def is_finished(self) -> bool:
        """True where a save was started, and `wait_for_save` would not wait for it."""
        return self._save is not None and all(part.done() for part in (self._save.writing, *self._save.removals))

    def start_save(
        self, checkpoint: dict[str, Any], target: Path, record: CheckpointRecord, commit: Callable[[Any], None]
    ) -> None:
        """Copy `checkpoint`, and let the thread pass the copy to `commit`."""
        assert self._save is None  # a second copy would take the memory of another state
        copied = self._copier.copy_state(checkpoint)

        def commit_copy() -> None:
            before = time.thread_time()
            copied.wait_for_device()
            commit(copied.content)
            self.cpu_seconds = time.thread_time() - before

        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="mlscale-checkpoint")
        self._save = SaveInFlight(target, record, self._thread.submit(commit_copy))

    def remove_after_save(self, remove: Callable[[], None]) -> None:
        """Call `remove` once the save in flight is committed; not if it fails."""
        assert self._save is not None
        assert self._thread is not None
        writing = self._save.writing

        def remove_if_saved() -> None:
            # The thread does one after the other, so this does not wait.
            if writing.exception() is None:
                remove()

        self._save.removals.append(self._thread.submit(remove_if_saved))

    def wait_for_save(self) -> tuple[SaveInFlight, BaseException | None] | None:
        """Wait for the save in flight, and return it with its error; None where nothing is in flight."""
        save = self._save
        if save is None:
            return None
        error = save.writing.exception()
        failed = [error] + [removal.exception() for removal in save.removals]
        self._save = None
        self._copier.reclaim_buffers()
        return save, next((raised for raised in failed if raised is not None), None)

    def end_thread(self) -> None:
        """End the thread, and free the buffers."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self._copier = HostCopier()
