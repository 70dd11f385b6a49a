"""Commit versions: written aside, committed by one rename. The caller holds the lock of the model."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mlscale.atomic_files import ASIDE, PRIVATE_FOLDER, iterate_regular_files, sync_folder, write_json
from mlscale.errors import MLScaleError
from mlscale.versions.object_store import ObjectStore, has_content
from mlscale.versions.version_record import PAYLOAD, RECORD, Version, is_payload_path


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
