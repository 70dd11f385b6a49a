"""Files that macOS, Windows and storage systems put among a user's own, which hold no samples."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

KIND = "skipped files of macOS, Windows or a storage system"

_NAMES = {".ds_store", ".localized", "icon\r", ".apdisk", "thumbs.db", "ehthumbs.db", "desktop.ini"}
_FOLDERS = {
    *("__macosx", ".spotlight-v100", ".trashes", ".fseventsd", ".appledouble"),
    *("$recycle.bin", "system volume information", "@eadir"),
}


class Skipped(NamedTuple):
    """What was left out of one kind: how many, and the first of them."""

    number: int
    first: str


def is_system_file(path: str) -> bool:
    """Whether a path, with '/' between folders, is one that an operating system has made: '._1.jpg', 'Thumbs.db'."""
    folder, _, name = path.rpartition("/")
    return name.startswith("._") or name.lower() in _NAMES or is_system_folder(folder)


@lru_cache(maxsize=1024)
def is_system_folder(path: str) -> bool:
    """Whether a folder, or one that it is in, is one that an operating system has made: '__MACOSX/photos'."""
    return any(part in _FOLDERS for part in path.lower().split("/"))


def without_system_files(paths: Iterable[str], *, where: str) -> list[str]:
    """The paths that are a user's own; how many others there are is reported."""
    own: list[str] = []
    skipped: dict[str, Skipped] = {}
    for path in paths:
        if is_system_file(path):
            count_skipped(skipped, KIND, path)
        else:
            own.append(path)
    report_skipped(skipped, where=where)
    return own


def count_skipped(skipped: dict[str, Skipped], kind: str, name: str) -> None:
    """Count one more of a kind."""
    before = skipped.get(kind)
    skipped[kind] = Skipped(1, name) if before is None else Skipped(before.number + 1, before.first)


def report_skipped(skipped: Mapping[str, Skipped], *, where: str) -> None:
    """One line on stderr for each kind; the same line once in a process, and by the first of several processes."""
    for kind, (number, first) in skipped.items():
        report_once(f"data      {where}: {kind}: {number:,}, the first: {first}")


def report_once(line: str) -> None:
    """Print a line on stderr, once in a process, and by the first of several processes."""
    if line in _reported or os.environ.get("RANK", "0") != "0":
        return
    _reported.add(line)
    print(line, file=sys.stderr, flush=True)


_reported: set[str] = set()
