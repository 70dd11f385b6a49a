"""The files of a folder that are code: neither installed nor built, nor written by mlscale itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath

ENTRIES = 20_000  # limit for scanning a folder without git: a user may start in a home directory
TOO_LARGE = ""  # not the path of any file
TRITON_CONFIG = "config.pbtxt"
TRITON_MARK = "# Written by mlscale export."
"""The first line of the configuration of a model for Triton, whose folder holds code that runs in a server. Users copy
such folders to where they serve from, and write models of their own next to them."""
_NO_CODE = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
_CODE = (".py", ".yaml", ".yml")
_VERSION = "versions/*/v*/version.json"  # in a registry of models
_SERVABLE = "servable.yaml"  # in what an export made


def exclude_generated_files(root: Path, names: list[str]) -> list[str]:
    """Drop files of run folders, registries, servables and their targets that git does not ignore: with them, the same
    code would get a new digest after every run or export.

    Args:
        root: the folder that the names are relative to.
        names: of files.
    """
    known, paths = set(names), [PurePath(name) for name in names]
    runs = {path.parent for path in paths if path.name == "run.json" and str(path.with_name("derived.yaml")) in known}
    servables = {path.parent for path in paths if path.name == _SERVABLE}
    # Four levels above `versions/<model>/v<number>/version.json` is the registry's folder.
    registries = {path.parents[3] for path in paths if path.match(_VERSION)}
    models = {path.parent for path in paths if path.name == TRITON_CONFIG and _has_triton_mark(root / path)}
    # Not ".": where the work tree itself is a run folder or a registry, all of its files would be dropped.
    generated = (runs | servables | registries | models) - {PurePath(".")}
    return [name for name, path in zip(names, paths, strict=True) if not generated.intersection(path.parents)]


def find_code_files(root: Path, deadline: float) -> Iterator[str]:
    """Yield Python and YAML files below `root`, except hidden, installed or built ones, and what mlscale has written.

    The last one is `TOO_LARGE` where the folder has more than `ENTRIES`, or the time is over.
    """
    entries = 0
    for parent, folders, names in os.walk(root):
        entries += len(folders) + len(names)
        if entries > ENTRIES or time.monotonic() > deadline:
            yield TOO_LARGE
            return
        here = Path(parent)
        version = "version.json" in names and (here / "version.json").match(_VERSION)
        is_made = "pyvenv.cfg" in names or _SERVABLE in names
        is_model = TRITON_CONFIG in names and _has_triton_mark(here / TRITON_CONFIG)
        if version or is_made or is_model or {"run.json", "derived.yaml"} <= set(names):
            folders.clear()
            continue
        # In place: os.walk enters only the folders that are left in its own list.
        folders[:] = sorted(folder for folder in folders if not folder.startswith(".") and folder not in _NO_CODE)
        yield from (str((here / name).relative_to(root)) for name in sorted(names) if name.endswith(_CODE))


def _has_triton_mark(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.readline(200).strip() == TRITON_MARK.encode()
    return False
