"""The images of a folder by class: which files are samples, and what is reported of all others."""

from __future__ import annotations

import os
from pathlib import Path

from mlscale.config.names.suggest import format_override
from mlscale.data.decoding.image_files import IMAGE_EXTENSIONS, is_image_file
from mlscale.data.shards.system_files import (
    KIND,
    SkippedFiles,
    count_skipped,
    is_system_file,
    is_system_folder,
    report_skipped,
)
from mlscale.errors import MLScaleError

_NOT_IMAGES = "skipped files that do not end as images do"
_LOOPS = "skipped links to a folder that they are in"
_LOOSE = "skipped images outside of the class folders"
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}
"""Names of folders that are splits, not classes."""


def list_class_images(root: Path) -> list[tuple[str, str]]:
    """Return (class, path from root) of every image, sorted.

    Raises:
        MLScaleError: class folders are missing, or one holds no image.
    """
    folders = [entry.name for entry in os.scandir(root) if entry.is_dir()]
    # Hidden folders, such as .git, are not classes.
    classes = sorted(name for name in folders if not name.startswith(".") and not is_system_folder(name))
    if not classes:
        loose = sum(is_image_file(entry.name) for entry in os.scandir(root))
        raise MLScaleError(
            f"the folder {str(root)!r} has no class folders",
            where="data.root",
            why=f"{loose} images are in it directly" if loose else "it is empty",
            fix=f"put the images of each class into a folder of its own: {root}/<class>/*.jpg",
        )
    if splits := [name for name in classes if name.lower() in _SPLIT_NAMES]:
        raise MLScaleError(
            f"the folders of {str(root)!r} are named as splits: {', '.join(splits)}",
            where="data.root",
            why="each would be a class",
            fix=f"rename them to train, val and test; or {format_override('data.root', str(root / splits[0]))}, "
            "which holds a part of it out",
        )
    skipped: dict[str, SkippedFiles] = {}
    for name in folders:
        if is_system_folder(name):
            count_skipped(skipped, KIND, f"{name}/")
    for name in sorted(entry.name for entry in os.scandir(root) if not entry.is_dir()):
        if not name.startswith(".") and not is_system_file(name):
            count_skipped(skipped, _LOOSE if is_image_file(name) else _NOT_IMAGES, name)
    files = {name: _find_image_files(root, name, skipped) for name in classes}
    report_skipped(skipped, where=str(root))
    if empty := [name for name, members in files.items() if not members]:
        raise MLScaleError(
            f"no image in {len(empty)} of the {len(classes)} class folders of {str(root)!r}",
            where="data.root",
            why=f"without: {', '.join(empty[:5])}{', …' if len(empty) > 5 else ''}; "
            f"images end in {' '.join(f'.{ending}' for ending in sorted(IMAGE_EXTENSIONS))}",
            fix="data.root=<the folder above the classes>, or remove the folders that are not classes",
        )
    return [(name, path) for name in classes for path in files[name]]


def _leads_upwards(path: Path) -> bool:
    """Return True for a symbolic link to one of the folders that it is in."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _find_image_files(root: Path, name: str, skipped: dict[str, SkippedFiles]) -> list[str]:
    images: list[str] = []
    # As torchvision's ImageFolder does: folders of a class may be symbolic links.
    for folder, folders, members in os.walk(root / name, followlinks=True):
        for member in sorted((*folders, *members)):
            # Folders as well, since os.walk will not enter them.
            if is_system_file(member) or is_system_folder(member):
                count_skipped(skipped, KIND, Path(folder, member).relative_to(root).as_posix())
        # In place: os.walk enters only the folders that are left in this list.
        folders[:] = [inside for inside in folders if not is_system_folder(inside)]
        # A link to a folder above itself would give each image again at every turn, until the kernel refuses.
        for inside in [inside for inside in folders if _leads_upwards(Path(folder, inside))]:
            folders.remove(inside)
            count_skipped(skipped, _LOOPS, Path(folder, inside).relative_to(root).as_posix())
        for member in members:
            path = Path(folder, member).relative_to(root).as_posix()
            if is_image_file(member) and not member.startswith("."):
                images.append(path)
            elif not member.startswith(".") and not is_system_file(member):
                count_skipped(skipped, _NOT_IMAGES, path)
    return sorted(images)
