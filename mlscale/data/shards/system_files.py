"""Files that macOS, Windows and storage systems put among a user's own, which hold no samples."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

KIND = "skipped files of macOS, Windows or a storage system"

# Of macOS: .DS_Store, .localized, Icon\r, .apdisk; of Windows: the others.
_NAMES = {".ds_store", ".localized", "icon\r", ".apdisk", "thumbs.db", "ehthumbs.db", "desktop.ini"}
_FOLDERS = {
    # Of macOS.
    *("__macosx", ".spotlight-v100", ".trashes", ".fseventsd", ".appledouble"),
    # Of Windows; @eaDir is of Synology's storage systems.
    *("$recycle.bin", "system volume information", "@eadir"),
}


def match_paths(pattern: str) -> list[str]:
    """Return the sorted paths that a glob names. What exists of it is a name, whatever `?`, `*` or `[` it has."""
    name = pattern
    while name and not os.path.exists(name):
        name = os.path.dirname(name)
    return sorted(glob.glob(glob.escape(name) + pattern[len(name) :], recursive=True))


class SkippedFiles(NamedTuple):
    """The number of skipped files of one kind, and the first of them."""

    number: int
    first: str


def is_system_file(path: str) -> bool:
    """Return True if a path, with '/' between folders, is made by an operating system: '._1.jpg', 'Thumbs.db'."""
    folder, _, name = path.rpartition("/")
    # '._' is AppleDouble: what macOS knows of a file, on file systems that cannot store it.
    return name.startswith("._") or name.lower() in _NAMES or is_system_folder(folder)


@lru_cache(maxsize=1024)
def is_system_folder(path: str) -> bool:
    """Return True if a folder, or a parent of it, is made by an operating system: '__MACOSX/photos'."""
    return any(part in _FOLDERS for part in path.lower().split("/"))


def drop_system_files(paths: Iterable[str], *, where: str) -> list[str]:
    """Return the paths that are a user's own; the number of others is reported on stderr."""
    own: list[str] = []
    skipped: dict[str, SkippedFiles] = {}
    for path in paths:
        if is_system_file(path):
            count_skipped(skipped, KIND, path)
        else:
            own.append(path)
    report_skipped(skipped, where=where)
    return own


def count_skipped(skipped: dict[str, SkippedFiles], kind: str, name: str) -> None:
    """Add one to the count of a kind."""
    before = skipped.get(kind)
    skipped[kind] = SkippedFiles(1, name) if before is None else SkippedFiles(before.number + 1, before.first)


def report_skipped(skipped: Mapping[str, SkippedFiles], *, where: str) -> None:
    """Print one line on stderr for each kind; see `report_once`."""
    for kind, (number, first) in skipped.items():
        report_once(f"data      {where}: {kind}: {number:,}, the first: {first}")


def report_once(line: str) -> None:
    """Print a line on stderr, once in a process, and by the first of several processes."""
    # RANK is set by torchrun, before any process group exists.
    if line in _reported or os.environ.get("RANK", "0") != "0":
        return
    _reported.add(line)
    print(line, file=sys.stderr, flush=True)


_reported: set[str] = set()
