"""Locks on files and folders that the system releases when their process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlscale.errors import MLScaleError

_LOCK_POLL_SECONDS = 0.02
_SCRATCH = "mlscale-scratch-"
_ATTEMPTS = 10  # each fails only where another process removes the new folder within microseconds


def lock_file(handle: int) -> None:
    """Lock an open file for as long as it is open; the system releases the lock when the process ends.

    Raises:
        OSError: another process holds it, or the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    # Without waiting: a lock that is held means that the file is in use.
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def wait_for_lock(handle: int, seconds: float) -> bool:
    """Lock an open file as `lock_file` does, but wait for another process for at most `seconds`; return True if locked.

    Raises:
        OSError: the file system has no locks.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            lock_file(handle)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        # Polled: `flock` has no timeout.
        if time.monotonic() >= end:
            return False
        time.sleep(_LOCK_POLL_SECONDS)


@contextlib.contextmanager
def hold_lock(
    path: Path, held: MLScaleError | None, seconds: float = 0.0, *, is_required: bool = False
) -> Iterator[None]:
    """Hold the lock of a folder, or of a file, which is made and stays, inside the block.

    Args:
        path: of the folder or file.
        held: raised where another process has the lock for `seconds`; None waits as long as it takes.
        seconds: to wait at most.
        is_required: whether a file system without locks is an error; else nothing is locked there.

    Raises:
        MLScaleError: `held`.
        OSError: the file can't be made, or the file system has no locks.
    """
    # A lock file that was removed would leave two processes with locks on two files of this name.
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    handle = os.open(path, flags, 0o600)
    try:
        is_held = True
        with contextlib.suppress(*(() if is_required else (OSError,))):
            is_held = wait_for_lock(handle, math.inf if held is None else seconds)
        if held is not None and not is_held:
            raise held
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[bool]:
    """Hold the lock of an existing folder during the block; the block gets True if it is held."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        yield False
        return
    try:
        try:
            lock_file(handle)
            # Between its creation and the lock another process may have removed it as abandoned.
            is_held = os.fstat(handle).st_ino == folder.stat().st_ino
        except OSError:
            is_held = False
        yield is_held
    finally:
        os.close(handle)


def remove_abandoned_folders(folders: Iterable[Path]) -> None:
    """Remove folders whose process has ended without removing them; those of running ones are locked."""
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            continue
        with hold_folder(folder) as is_held:
            # A file system without locks can't show that a folder is abandoned, so it stays.
            if is_held:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def make_scratch_folder(use: str) -> Iterator[Path]:
    """Provide a temporary folder during the block, and remove those that killed processes of this user have left.

    Args:
        use: a word of its name, for whoever looks into the temporary folder.
    """
    parent = Path(tempfile.gettempdir())
    remove_abandoned_folders(_list_own_folders(parent))
    with contextlib.ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}{use}-", dir=parent)))
            # Not held where the file system has no locks; no other process removes it there, either.
            if stack.enter_context(hold_folder(folder)) or folder.exists():
                break
        yield folder


def _list_own_folders(parent: Path) -> Iterator[Path]:
    for folder in parent.glob(f"{_SCRATCH}*"):
        # Of other users they are neither readable nor ours to remove.
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.getuid():
                yield folder
