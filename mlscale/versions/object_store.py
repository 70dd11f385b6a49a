"""Store files by their digest: each content is in the registry once, complete, and read only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mlscale.atomic_files import ASIDE, PRIVATE_FOLDER, compute_sha256, iterate_regular_files, sync_folder, write_json
from mlscale.errors import MLScaleError
from mlscale.versions.version_record import PAYLOAD, RECORD, File, Version, is_payload_path

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


def commit_version(draft: Version, objects: ObjectStore) -> Version:
    """Commit a draft as the next version; its path is the model's folder, and its files are in the object store.

    Raises:
        OSError: it can't be written; readers then see nothing of it.
    """
    folder = draft.path
    for left in folder.glob(f"{ASIDE}*"):  # of killed processes: the lock excludes other writers
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    number = max(list_version_numbers(folder), default=0) + 1
    version = replace(draft, number=number, path=folder / f"v{number}")
    aside = folder / f"{ASIDE}v{number}-{secrets.token_hex(4)}"
    made = {aside, aside / PAYLOAD, *((aside / PAYLOAD / name).parent for name in version.files)}
    # Sorted, parents come first and get the private mode; `mkdir` gives it only to the last folder of a path.
    for subfolder in sorted(made):
        subfolder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    for name, file in version.files.items():
        objects.link_file(file, aside / PAYLOAD / name)
    write_json(aside / RECORD, version.build_version_record())
    # Before the rename: after a power failure a committed version must not lack files.
    for subfolder in made:
        sync_folder(subfolder)
    aside.rename(version.path)
    sync_folder(folder)
    return version


def restore_version_files(version: Version, objects: ObjectStore) -> None:
    """Restore a version's corrupted files from the object store.

    Raises:
        OSError: it can't be written.
    """
    for name, file in version.files.items():
        target = version.payload / name
        if not has_content(target, file):
            target.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            objects.link_file(file, target)


def list_version_numbers(folder: Path) -> list[int]:
    """Return the numbers of the versions in the folder of a model, ascending."""
    names = (path.name for path in folder.glob("v*"))
    return sorted(int(name[1:]) for name in names if name[1:].isdecimal())


def collect_sources(files: Path | Mapping[str, Path]) -> dict[str, Path]:
    """Return the files to publish, by their path in the version, from a folder or from a mapping of files.

    Raises:
        MLScaleError: there are none, one is not a regular file, or its path is not allowed in a version.
    """
    if isinstance(files, Mapping):
        sources = dict(files)
    else:
        # `iterate_regular_files` skips links: without an error the version would lack these files.
        linked = [path for path in files.rglob("*") if path.is_symlink()]
        if linked:
            raise MLScaleError(
                "a version holds files, not links", where=str(linked[0]), fix="put the file in its place"
            )
        sources = {path.relative_to(files).as_posix(): path for path in iterate_regular_files(files)}
    if not sources:
        raise MLScaleError(
            "there is nothing to publish",
            where=str(files),
            why="no file is there",
            fix="mlscale versions add <a run or a servable's folder>",
        )
    for name, path in sources.items():
        if not is_payload_path(name):
            raise MLScaleError(
                f"'{name}' is not a path inside a version",
                where=str(path),
                fix="name files by a relative path without '..'",
            )
        if not path.is_file():
            raise MLScaleError(
                "can't read a file to publish",
                where=str(path),
                why="it is not there",
                fix="mlscale runs ls, for what there is to publish",
            )
    return sources
