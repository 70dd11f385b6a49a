"""Find the setting under which paths of images that are not there would be: another folder, or an ending."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlscale.config.names.suggest import format_override
from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.image_tables.image_cells import ImageCells, locate_image

_MOST_FOLDERS = 50
_TRIED = 5
"""Rows that must all be there."""
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".JPG", ".JPEG", ".PNG")


def suggest_root(cells: ImageCells, rows: Sequence[int]) -> str | None:
    """Return the overrides by which images of rows are found; None where no folder nearby has them.

    Args:
        cells: the column.
        rows: some that can't be used.
    """
    absent = [row for row in rows if (path := cells.get_path(row)) is not None and not os.path.isfile(path)]
    tried = [(cells.names[row] or "", cells.get_root(row)) for row in absent[:_TRIED]]
    if not tried:
        return None
    first = tried[0][1]
    # Kaggle's tables have the names of images without their ending.
    endings = ("", *_SUFFIXES) if not any(is_image_file(name) and "." in name for name, _ in tried) else ("",)
    # The nearest folder first: a copy of the data may be further up.
    for folder in _list_folders(first):
        for ending in endings:
            paths = [locate_image(name + ending, folder) for name, _ in tried]
            if all(path is not None and os.path.isfile(path) for path in paths):
                words = [] if folder == first else [format_override("data.image_root", str(folder))]
                return " ".join([*words, *([f"data.suffix={ending}"] if ending else [])])
    return None


def _list_folders(root: Path) -> Iterator[Path]:
    """Yield the folder itself, those in it, and those above it."""
    yield root
    # A folder that can't be listed is not suggested.
    try:
        inside = sorted(entry.path for entry in os.scandir(root) if entry.is_dir())
    except OSError:
        inside = []
    yield from map(Path, inside[:_MOST_FOLDERS])
    above = root.absolute().parents
    yield from above[:3]
    yield Path.cwd()
