"""The folder of an outbox: the files of its items, those that were set aside, and the lock of the one that sends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mlscale.atomic_files import PRIVATE_FILE, create_write_error, make_folders
from mlscale.errors import MLScaleError
from mlscale.file_locks import wait_for_lock
from mlscale.outbox.outbox_item import OutboxItem, read_item

SUFFIX = ".json"
_LOCK = ".lock"
_FAILED = "failed"


class ItemFolder:
    """The files of one outbox.

    Args:
        path: of the folder, which may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def list_waiting(self) -> list[Path]:
        """Return the files of the items that wait, in order."""
        return _list_json_files(self.path)

    def list_failed(self) -> list[Path]:
        """Return the files of the items that were given up or can't be read, in order."""
        return _list_json_files(self.path / _FAILED)

    def read_items(self) -> tuple[list[OutboxItem], list[str]]:
        """Return the items that wait, and a line for each that can't be read, which is set aside."""
        items, failed = [], []
        for path in self.list_waiting():
            try:
                items.append(read_item(path))
            except MLScaleError as error:
                # Gone since it was listed is not corrupt.
                if path.exists():
                    failed.append(self.set_aside(path, f"can't be read: {error.why or error.what}"))
        return items, failed

    def set_aside(self, path: Path, why: str) -> str:
        """Move the file of an item to those that failed, and return the line that reports it."""
        target = self.path / _FAILED / path.name
        with contextlib.suppress(MLScaleError, OSError):
            make_folders(target.parent)
            path.rename(target)
        return f"{target}: {why}"

    @contextlib.contextmanager
    def hold_lock(self, seconds: float) -> Iterator[bool]:
        """Hold the folder's lock inside the block, or yield False if another process has it for that long."""
        path = self.path / _LOCK
        while True:
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
            except OSError as error:
                raise create_write_error(path, error) from error
            try:
                is_held = True
                with contextlib.suppress(OSError):  # a file system without locks: an item may be sent twice
                    is_held = wait_for_lock(handle, seconds)
                # `remove` may have removed the file that was opened: then the lock on it protects nothing.
                if is_held and not _is_same_file(handle, path):
                    continue
                yield is_held
                return
            finally:
                os.close(handle)

    def remove(self) -> None:
        """Remove the folder if nothing but the lock is in it, and nothing is being sent."""
        with self.hold_lock(0.0) as is_held, contextlib.suppress(OSError):
            if is_held and not {path.name for path in self.path.iterdir()} - {_LOCK}:
                (self.path / _LOCK).unlink(missing_ok=True)
                self.path.rmdir()


def _is_same_file(handle: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _list_json_files(folder: Path) -> list[Path]:
    """Return the files of items, in order; nothing that is still being written, whose name begins with a dot."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.name[:1].isdigit())
    return []
