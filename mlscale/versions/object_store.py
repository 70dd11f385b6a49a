"""Store files by their digest: each content is in the registry once, complete, and read only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from pathlib import Path

from mlscale.atomic_files import ASIDE, PRIVATE_FOLDER, compute_sha256, sync_folder
from mlscale.versions.version_record import File

_BLOCK = 1 << 20
_READ_ONLY = 0o400
_STALE_SECONDS = 3600.0  # far more than the time between two writes of a file, or between copying and linking it


class ObjectStore:
    """The folder `objects` of a registry: `objects/ab/abcd…` holds the content whose SHA-256 is abcd….

    Args:
        folder: the folder; created when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add_file(self, source: Path) -> File:
        """Copy a file into the store. It is hashed while it is copied, so the digest is that of the copy even if the
        source changes meanwhile. It is not a link to the source: a later change would reach the registry.

        Raises:
            OSError: the source can't be read, or the registry can't be written.
        """
        self.folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        aside = self.folder / f"{ASIDE}{secrets.token_hex(8)}"
        try:
            file = _copy_and_hash(source, aside)
            target = self.get_object_path(file)
            target.parent.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            if has_content(target, file):
                os.utime(target)  # in use: see `remove_unused_files`
            else:  # absent or corrupted: later versions must not link to it
                aside.replace(target)
                sync_folder(target.parent)
        finally:
            aside.unlink(missing_ok=True)
        return file

    def remove_unused_files(self) -> None:
        """Remove unused files older than an hour: incomplete ones of failed or killed processes, and objects without a
        link from a version. Where versions hold copies instead of links, they need no objects."""
        for path in [*self.folder.glob(f"{ASIDE}*"), *self.folder.glob("??/*")]:
            with contextlib.suppress(OSError):
                known = path.stat()
                # The count of links is the reference count: each version that holds the object adds one.
                if known.st_nlink == 1 and time.time() - known.st_mtime > _STALE_SECONDS:
                    path.unlink()

    def link_file(self, file: File, target: Path) -> None:
        """Replace `target` by the content atomically: with a hard link, or a copy where links are not available.

        Raises:
            OSError: it can't be written.
        """
        aside = target.with_name(f"{ASIDE}{secrets.token_hex(8)}")
        try:
            try:
                os.link(self.get_object_path(file), aside)
            except OSError:  # a file system without hard links, or with a limit of links to one file
                shutil.copyfile(self.get_object_path(file), aside)
                _make_read_only(aside)
            aside.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):  # renaming a link onto a link to the same file leaves both
                aside.unlink()

    def get_object_path(self, file: File) -> Path:
        """Return the path of the content."""
        return self.folder / file.sha256[:2] / file.sha256


def has_content(path: Path, file: File) -> bool:
    """Return True if the file at `path` has exactly that content."""
    try:
        # The size first: it is known at once, and a digest reads the entire file.
        return path.is_file() and path.stat().st_size == file.bytes and compute_sha256(path) == file.sha256
    except OSError:
        return False


def _copy_and_hash(source: Path, target: Path) -> File:
    digest, count = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("xb") as write:
        # In one pass: between hashing and copying, the source could change.
        while block := read.read(_BLOCK):
            digest.update(block)
            count += write.write(block)
    _make_read_only(target)
    return File(digest.hexdigest(), count)


def _make_read_only(path: Path) -> None:
    """Flush a file to the disk and make it read only, so that not even its owner changes it by accident."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    path.chmod(_READ_ONLY)
