"""The images of a folder by class: which files are samples, and what is reported of all others."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
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
_ALL_DEEP = "images in folders of the class folders, whose class they have"
_OUTSIDE = "skipped files and folders outside of the splits"
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
    skipped: dict[str, SkippedFiles] = {}
    for name in folders:
        if is_system_folder(name):
            count_skipped(skipped, KIND, f"{name}/")
    for name in sorted(entry.name for entry in os.scandir(root) if not entry.is_dir()):
        if not name.startswith(".") and not is_system_file(name):
            count_skipped(skipped, _LOOSE if is_image_file(name) else _NOT_IMAGES, name)
    files = {name: _find_image_files(root, name, skipped) for name in classes}
    if all(path.count("/") > 1 for paths in files.values() for path in paths):
        for path in (path for paths in files.values() for path in paths):
            count_skipped(skipped, _ALL_DEEP, path)
    report_skipped(skipped, where=str(root))
    if empty := [name for name, members in files.items() if not members]:
        raise MLScaleError(
            f"no image in {len(empty)} of the {len(classes)} class folders of {str(root)!r}",
            where="data.root",
            why=f"without: {', '.join(empty[:5])}{', …' if len(empty) > 5 else ''}; "
            f"images end in {' '.join(f'.{ending}' for ending in sorted(IMAGE_EXTENSIONS))}",
            fix="data.root=<the folder above the classes>, or remove the folders that are not classes",
        )
    _check_class_folders(root, files, skipped.get(_LOOSE))
    return [(name, path) for name in classes for path in files[name]]


def report_outside_splits(root: Path, splits: Collection[str]) -> None:
    """Print one line on stderr where a folder of splits holds anything else that might be meant as samples."""
    skipped: dict[str, SkippedFiles] = {}
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        is_folder = entry.is_dir()
        if entry.name in splits or entry.name.startswith(".") or is_system_file(entry.name):
            continue
        if is_folder and not is_system_folder(entry.name):
            count_skipped(skipped, _OUTSIDE, f"{entry.name}/")
        elif is_image_file(entry.name):
            count_skipped(skipped, _OUTSIDE, entry.name)
    report_skipped(skipped, where=str(root))


def _check_class_folders(root: Path, files: Mapping[str, Sequence[str]], loose: SkippedFiles | None) -> None:
    """Raise where the folders that were taken as classes are probably none.

    Raises:
        MLScaleError: more images are next to the folders than in them, the folders are named as splits, or the only one
            holds the class folders.
    """
    count = sum(map(len, files.values()))
    if loose is not None and loose.number > count:
        raise MLScaleError(
            f"{loose.number:,} images are next to the class folders of {str(root)!r}, and {count:,} in them",
            where="data.root",
            why=f"an image has the class of the folder that it is in, and these have none, such as {loose.first}",
            fix=f"move each image into the folder of its class: {root}/<class>/{loose.first}; or out of {root}",
        )
    inside = {
        name: sorted({path.split("/")[1] for path in paths if path.count("/") > 1}) for name, paths in files.items()
    }
    is_deep = {name: all(path.count("/") > 1 for path in paths) for name, paths in files.items()}
    if splits := [name for name in files if name.lower() in _SPLIT_NAMES and is_deep[name]]:
        raise MLScaleError(
            f"the folders of {str(root)!r} are named as splits: {', '.join(splits)}",
            where="data.root",
            why=f"each would be a class, with the images of its folders {', '.join(inside[splits[0]][:5])}",
            fix=f"rename them to train, val and test; or {format_override('data.root', str(root / splits[0]))}, "
            "which holds a part of it out",
        )
    (first, *others) = files
    if not others and is_deep[first] and len(inside[first]) > 1:
        raise MLScaleError(
            f"the folder {str(root)!r} has a single class folder, {first!r}",
            where="data.root",
            why=f"its images are in the folders {', '.join(inside[first][:5])}, which are one level too deep",
            fix=format_override("data.root", str(root / first)),
        )


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
