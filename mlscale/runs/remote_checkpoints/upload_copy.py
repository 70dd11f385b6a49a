"""Copies of checkpoints that wait for their upload: the checkpoints themselves may be replaced or removed meanwhile."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from mlscale.atomic_files import ASIDE

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
