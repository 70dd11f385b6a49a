"""The entry points by which installed packages extend mlscale. Imports nothing heavy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.errors import Exit, MLScaleError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def read_entry_points(group: str) -> list[EntryPoint]:
    """Return the entry points of a group, of all installed packages, by name."""
    if not is_declared(group):
        return []
    from importlib.metadata import entry_points

    return sorted(entry_points(group=group), key=lambda point: (point.name, get_package_name(point)))


def get_package_name(point: EntryPoint) -> str:
    """Return the name of the package that declares an entry point."""
    return point.dist.name if point.dist else "?"


def is_declared(group: str) -> bool:
    """Return whether an installed package may have an entry point of this group.

    The files that `importlib.metadata` would parse are searched for its name: it is seldom there, and to import
    `importlib.metadata` and ask it takes 20 ms, which a typo would wait for.
    """
    for name in sys.path:
        folder = Path(name)
        if folder.suffix == ".egg" or folder.is_file():  # zipped or old: leave it to those who can read it
            return True
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            if entry.endswith((".dist-info", ".egg-info")):
                try:
                    # A substring search on bytes: a false hit costs only the slow path, and nothing has to be decoded.
                    if group.encode() in (folder / entry / "entry_points.txt").read_bytes():
                        return True
                except OSError:
                    continue
    # Editable installs and zip importers may find distributions that are not folders on sys.path.
    finders = (finder for finder in sys.meta_path if getattr(finder, "__name__", "") != "PathFinder")
    return any(hasattr(finder, "find_distributions") for finder in finders)


def create_load_error(kind: str, point: EntryPoint, why: str) -> MLScaleError:
    """Return the error for an entry point that does not load.

    Args:
        kind: what it brings, such as 'command'.
        point: the entry point.
        why: the reason; line breaks are removed.
    """
    return MLScaleError(
        f"the {kind} '{point.name}' does not load",
        where=f"package {get_package_name(point)}",
        why=" ".join(why.split()),
        fix=f"pip uninstall {get_package_name(point)}, or correct the entry point {point.name} = {point.value}",
        exit=Exit.ENVIRONMENT,
    )
