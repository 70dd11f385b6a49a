"""Files by their digest: each content lies in the registry once, whole, and read only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from pathlib import Path

from mlscale.files import ASIDE, PRIVATE_FOLDER, sha256, sync_folder
from mlscale.versions.version_record import File

_BLOCK = 1 << 20
_READ_ONLY = 0o400
_STALE_SECONDS = 3600.0  # between two writes of a file, or between copying it and linking to it, nobody pauses as long


class Objects:
    """The folder `objects` of a registry: `objects/ab/abcd…` holds the content whose SHA-256 is abcd….

    Args:
        folder: it; made when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, source: Path) -> File:
        """Copy a file in. It is hashed while it is copied: the digest is that of what was written, whoever changes the
        source meanwhile. Nothing is linked to the source, so that no later change to it reaches the registry.

        Raises:
            OSError: the source can't be read, or the registry can't be written.
        """
        self.folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        aside = self.folder / f"{ASIDE}{secrets.token_hex(8)}"
        try:
            file = _copy(source, aside)
            target = self.path(file)
            target.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            if holds(target, file):
                os.utime(target)  # in use: see `tidy`
            else:  # absent, or damaged: then later versions must not link to it
                aside.replace(target)
                sync_folder(target.parent)
        finally:
            aside.unlink(missing_ok=True)
        return file

    def tidy(self) -> None:
        """Remove what nobody needs: what processes that were killed, or found no room, left behind an hour ago, and
        objects that no version links to. Where versions hold copies instead of links, they need no object at all."""
        for path in [*self.folder.glob(f"{ASIDE}*"), *self.folder.glob("??/*")]:
            with contextlib.suppress(OSError):
                known = path.stat()
                if known.st_nlink == 1 and time.time() - known.st_mtime > _STALE_SECONDS:
                    path.unlink()

    def place(self, file: File, target: Path) -> None:
        """Give `target` the content, in one step, replacing what is there: by a hard link; by a copy where there are
        none.

        Raises:
            OSError: it can't be written.
        """
        aside = target.with_name(f"{ASIDE}{secrets.token_hex(8)}")
        try:
            try:
                os.link(self.path(file), aside)
            except OSError:  # a file system without links, or more links to one file than it allows
                shutil.copyfile(self.path(file), aside)
                _close_down(aside)
            aside.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):  # renaming a link onto another to the same file leaves it
                aside.unlink()

    def path(self, file: File) -> Path:
        """Where the content lies."""
        return self.folder / file.sha256[:2] / file.sha256


def holds(path: Path, file: File) -> bool:
    """Whether the file at `path` has exactly that content."""
    try:
        return path.is_file() and path.stat().st_size == file.bytes and sha256(path) == file.sha256
    except OSError:
        return False


def _copy(source: Path, target: Path) -> File:
    digest, count = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("xb") as write:
        while block := read.read(_BLOCK):
            digest.update(block)
            count += write.write(block)
    _close_down(target)
    return File(digest.hexdigest(), count)


def _close_down(path: Path) -> None:
    """Flush to the disk; then nobody, the owner included, writes to it by accident."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    path.chmod(_READ_ONLY)
