"""Lock the registry for one writer at a time, and raise errors that name the registry's folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mlscale.atomic_files import PRIVATE_FILE
from mlscale.errors import Exit, MLScaleError
from mlscale.file_locks import wait_for_lock

LOCK = ".lock"
_WAIT_SECONDS = 60.0  # a lock is held while a few small files are written; a minute means that something hangs


@contextlib.contextmanager
def hold_folder_lock(folder: Path, seconds: float = _WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock of `folder`, which exists, inside the block; the system releases it when the process ends.

    Args:
        folder: the folder that only one process at a time may change.
        seconds: the time to wait for another process; 0 tries once.

    Raises:
        MLScaleError: another process held it all the time, or the file system has no locks (exit code 5).
    """
    # The lock file stays: were it removed, two processes could each lock a different file of this name.
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        _acquire_lock(handle, folder, seconds)
        yield
    finally:
        os.close(handle)


def _acquire_lock(handle: int, folder: Path, seconds: float) -> None:
    try:
        is_held = wait_for_lock(handle, seconds)
    except OSError as error:
        raise MLScaleError(
            "the registry's file system has no locks",
            where=str(folder),
            why=error.strerror or str(error),
            fix="registry.root=<a folder of a local disk, or of NFS with locks>",
            exit=Exit.ENVIRONMENT,
        ) from error
    if not is_held:
        raise LockHeldError(
            "another process is writing to the registry",
            where=str(folder / LOCK),
            fix="try again when it has ended",
            exit=Exit.ENVIRONMENT,
        )


class LockHeldError(MLScaleError):
    """The lock is held by another process."""


@contextlib.contextmanager
def translate_disk_errors(root: Path) -> Iterator[None]:
    """Turn disk errors inside the block into an error with the registry's folder and the setting that moves it.

    Raises:
        MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
    """
    try:
        yield
    except OSError as error:
        raise _make_unwritable_error(root, error) from error
    except MLScaleError as error:
        # Its fix is the setting of the runs' folder, which does not move the registry.
        if isinstance(error.__cause__, OSError) and error.fix.startswith("runs_dir="):  # of mlscale.atomic_files
            raise _make_unwritable_error(root, error.__cause__) from error.__cause__
        raise


def _make_unwritable_error(root: Path, error: OSError) -> MLScaleError:
    return MLScaleError(
        "can't write to the registry",
        where=str(error.filename or root),
        why=error.strerror or str(error),
        fix="registry.root=<a folder with free space that you may write to>",
        exit=Exit.ENVIRONMENT,
    )
