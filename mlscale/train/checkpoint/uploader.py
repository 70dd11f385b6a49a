"""Copy committed checkpoints to an object store by a thread, while the training continues."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlscale.atomic_files import ASIDE, explain_os_error
from mlscale.runs.checkpoint_files.checkpoint_search import list_checkpoint_files
from mlscale.runs.recover import is_run_folder
from mlscale.runs.remote_checkpoints.checkpoint_store import CheckpointStore
from mlscale.runs.remote_checkpoints.run_copy import store_run_files
from mlscale.runs.remote_checkpoints.run_store import find_missing
from mlscale.runs.remote_checkpoints.store_access import describe_store_error
from mlscale.train.checkpoint.save_messages import print_warning


@dataclass(frozen=True)
class RetryWaits:
    """The waits between attempts, in seconds.

    Attributes:
        first: after the first failure; then twice as long each time.
        longest: the most.
        last_tries: attempts that may fail in a row once the fit has ended.
    """

    first: float = 1.0
    longest: float = 60.0
    last_tries: int = 4


class CheckpointUploader:
    """A thread that uploads one checkpoint at a time, and removes in the store what was removed here.

    Of each name the newest checkpoint alone waits, so at most one is in flight and one of each name waits. Copies share
    their bytes on the disk with the checkpoint (hard links), so it may be replaced meanwhile. A failure is repeated for
    as long as the training runs; nothing waits for it before `close`. Removals come once no upload waits: at every
    moment the store has the old checkpoint or the one that replaces it.

    Args:
        store: where to.
        folder: of the checkpoints.
        waits: between attempts.
        get_limit: returns the seconds that `close` may take at most; None for as long as attempts succeed, and
            `RetryWaits.last_tries` of them have not failed in a row.
    """

    def __init__(
        self,
        store: CheckpointStore,
        folder: Path,
        waits: RetryWaits | None = None,
        get_limit: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.store, self.folder = store, folder.resolve()
        self._waits, self._get_limit = waits or RetryWaits(), get_limit
        self._uploads: dict[str, Path] = {}  # the copy by the checkpoint's name, oldest first
        self._removals: list[str] = []
        self._current: str | None = None
        self._has_compared = self._is_closing = self._is_store_ahead = False
        self._failures = 0
        self._failed_since = 0.0
        self._changed = threading.Condition()
        remove_left_copies(folder)
        # A daemon: a store that does not respond must not keep a process alive that has closed it.
        self._thread = threading.Thread(target=self._work, name="mlscale-uploads", daemon=True)
        self._thread.start()

    def add_checkpoint(self, path: Path) -> None:
        """Upload a checkpoint that was just committed, in place of one of its name that waits."""
        if path.parent.resolve() != self.folder:  # of a callback with a folder of its own
            return
        try:
            copy = copy_for_upload(path)
        except OSError as error:
            print_warning(f"{path.name} is not uploaded: {explain_os_error(error, path)}")
            return
        with self._changed:
            if (waiting := self._uploads.get(path.name)) is not None:
                remove_copy(waiting)
            # In its place: a state that counts on it, as on the best so far, comes after it.
            self._uploads[path.name] = copy
            self._removals = [name for name in self._removals if name != path.name]
            self._changed.notify_all()

    def remove_checkpoint(self, path: Path) -> None:
        """Remove a checkpoint in the store, once no upload waits."""
        if path.parent.resolve() != self.folder:
            return
        with self._changed:
            if (waiting := self._uploads.pop(path.name, None)) is not None:
                remove_copy(waiting)
            self._removals.append(path.name)
            self._changed.notify_all()

    def close(self) -> list[str]:
        """Wait for all uploads, and end the thread; return the names of checkpoints that were not uploaded."""
        seconds = self._get_limit()
        with self._changed:
            if waiting := self._list_waiting():
                print_warning(f"waiting until {', '.join(waiting)} is in {self.store.address}", "upload")
            # What the store had ahead of a folder that was lost is not needed any more, where the run has passed it.
            self._has_compared = self._has_compared and not self._is_store_ahead
            self._is_closing, self._failures = True, 0
            self._changed.notify_all()
        self._thread.join(seconds)
        with self._changed:
            left = self._list_waiting()
            if not self._has_compared:  # what the store lacks of an earlier process is not known
                local = [saved.path.name for saved in list_checkpoint_files(self.folder) if saved.state == "ok"]
                left = list(dict.fromkeys([*left, *local]))
            for copy in self._uploads.values():
                remove_copy(copy)
            self._uploads.clear()
        if left:
            run = self.folder.parent.name.rpartition("-")[2]
            print_warning(f"not in {self.store.address}: {', '.join(left)}; mlscale runs send {run} uploads it")
        return left

    def _list_waiting(self) -> list[str]:
        return list(dict.fromkeys([*([self._current] if self._current else []), *self._uploads]))

    def _work(self) -> None:
        while (task := self._take_task()) is not None:
            name, copy = task
            try:
                self._run_task(name, copy)
            except Exception as error:  # of any package, and of the network
                self._put_back(name, copy)
                if not self._wait_after_failure(name, error):
                    return
            else:
                self._conclude_task(copy)

    def _take_task(self) -> tuple[str, Path | None] | None:
        """Return the next name with its copy, or without one where it is to be removed; ('', None) to compare the store
        with the folder; None at the end."""
        with self._changed:
            while not (self._uploads or self._removals or self._is_closing or not self._has_compared):
                self._changed.wait()
            if not self._has_compared:
                return "", None
            if self._uploads:
                self._current = next(iter(self._uploads))
                return self._current, self._uploads.pop(self._current)
            return (self._removals.pop(0), None) if self._removals else None

    def _run_task(self, name: str, copy: Path | None) -> None:
        if not name:
            self._store_run()
            self._compare_with_folder()
        elif copy is not None:
            self._store_run()  # with the config and the metrics that the checkpoint goes with
            self.store.put_checkpoint(name, copy)
        else:
            self.store.remove_checkpoint(name)

    def _store_run(self) -> None:
        if is_run_folder(self.folder.parent):
            store_run_files(self.store, self.folder.parent)

    def _compare_with_folder(self) -> None:
        """Find what an earlier process has not uploaded or removed any more."""
        self.store.remove_incomplete()
        remote = {checkpoint.name: checkpoint for checkpoint in self.store.list_checkpoints()}
        local = {saved.path.name: saved for saved in list_checkpoint_files(self.folder) if saved.state == "ok"}
        missing = {saved.path for saved in find_missing(self.folder, list(remote.values()))}
        reached = max((saved.record.step for saved in local.values() if saved.record), default=-1)
        with self._changed:
            for name, saved in local.items():
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    # What waits was committed since, and is newer.
                    if name not in self._uploads and saved.path in missing:
                        self._uploads[name] = copy_for_upload(saved.path)
            # Where the store is ahead, this folder was lost, and the store knows better what the run keeps.
            self._is_store_ahead = any(checkpoint.record.step > reached for checkpoint in remote.values())
            if not self._is_store_ahead:
                self._removals += [name for name in remote if name not in local and name not in self._uploads]
            self._has_compared = True

    def _put_back(self, name: str, copy: Path | None) -> None:
        with self._changed:
            self._current = None
            if copy is None:
                self._removals += [name] if name and name not in self._uploads else []
            elif name in self._removals:
                remove_copy(copy)
            else:
                if (newer := self._uploads.pop(name, None)) is not None:
                    remove_copy(copy)
                self._uploads = {name: newer or copy, **self._uploads}

    def _wait_after_failure(self, name: str, error: Exception) -> bool:
        """Report the first failure, and wait; return False where no further attempt is to be made."""
        if self._failed_since == 0.0:
            self._failed_since = time.monotonic()
            what = f"{name} was not uploaded to" if name else "no answer from"
            print_warning(
                f"{what} {self.store.address}: {describe_store_error(error)}. The training continues, the "
                f"checkpoint is in {self.folder}, and the upload is repeated."
            )
        self._failures += 1
        with self._changed:
            if self._is_closing and self._failures >= self._waits.last_tries:
                return False
            pause = min(self._waits.longest, self._waits.first * 2 ** min(self._failures - 1, 20))
            was_closing, end = self._is_closing, time.monotonic() + pause
            # `close` ends a long wait: what it waits for is tried at once.
            while time.monotonic() < end and self._is_closing == was_closing:
                self._changed.wait(end - time.monotonic())
        return True

    def _conclude_task(self, copy: Path | None) -> None:
        if copy is not None:
            remove_copy(copy)
        with self._changed:
            self._current = None
            self._failures = 0
        if self._failed_since:
            seconds, self._failed_since = time.monotonic() - self._failed_since, 0.0
            print_warning(f"{self.store.address} is reached again, after {seconds:.0f} s", "upload")


_PREFIX = f"{ASIDE}upload-"


def copy_for_upload(path: Path) -> Path:
    """Return a copy that shares the bytes of a checkpoint on the disk, where the file system can do that.

    Raises:
        FileNotFoundError: the checkpoint was removed or replaced meanwhile.
        OSError: the disk is full.
    """
    copy = path.with_name(f"{_PREFIX}{path.name}.{secrets.token_hex(4)}")
    try:
        if path.is_dir():
            folder = path.stat().st_ino
            shutil.copytree(path, copy, copy_function=_link_or_copy)
            if path.stat().st_ino != folder:  # the copy may have parts of both
                raise FileNotFoundError(str(path))
        else:
            _link_or_copy(str(path), str(copy))
    except OSError as error:
        remove_copy(copy)
        if not path.exists():  # removed meanwhile: of a folder, `copytree` reports that as an error of its own
            raise FileNotFoundError(str(path)) from error
        raise
    return copy


def remove_left_copies(folder: Path) -> None:
    """Remove the copies that a process which was killed has left in a folder of checkpoints."""
    for left in folder.glob(f"{_PREFIX}*"):
        remove_copy(left)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def remove_copy(copy: Path) -> None:
    """Remove a copy; an error does not end a training."""
    with contextlib.suppress(OSError):
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink(missing_ok=True)
