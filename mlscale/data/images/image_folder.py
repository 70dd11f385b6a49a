"""Image data in a user's folders, one for each class."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import suggest_restore
from mlscale.config.names.suggest import format_override
from mlscale.data.decoding.image_files import IMAGE_EXTENSIONS, is_image_file
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.images.labelled_images import ImageBackend
from mlscale.data.inspection.leaks import describe_shared_groups
from mlscale.data.order.policy import Policy, TolerantPolicyArguments
from mlscale.data.shards.sample_source import Label, SampleSource
from mlscale.data.shards.system_files import (
    KIND,
    SkippedFiles,
    count_skipped,
    is_system_file,
    is_system_folder,
    report_once,
    report_skipped,
)
from mlscale.data.table_parsing.hold_out import check_fraction, hash_to_fraction
from mlscale.errors import MLScaleError

# Files of which the data version covers the first block: to read all would take as long as an epoch.
_PROBE_COUNT = 256
_BLOCK = 4096
_SPLITS = ("train", "val", "test")


class FolderSource:
    """A split in files.

    Args:
        root: the folder.
        files: (class, path from `root`) of each image, sorted.
    """

    def __init__(self, root: Path, files: Sequence[tuple[str, str]]) -> None:
        self._root, self._files = root, files
        self.raw_labels: list[Label] = [name for name, _ in files]
        self.version = self._compute_digest()

    @property
    def is_remote(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._files)

    def get_key(self, sample: int) -> str:
        return self._files[sample][1]

    def read_image(self, sample: int) -> tuple[str, bytes]:
        path = self._root / self._files[sample][1]
        try:
            return path.suffix[1:].lower(), path.read_bytes()
        except OSError as error:
            raise MLScaleError(
                f"the image {str(path)!r} cannot be read",
                where=str(path),
                why=error.strerror or str(error),
                fix=suggest_restore(path),
            ) from error

    def list_image_marks(self) -> NDArray[np.int64]:
        # Sizes alone: files have no recorded digests.
        sizes = [(self._root / path).stat().st_size for _, path in self._files]
        return np.stack([np.array(sizes, np.int64), np.full(len(sizes), -1, np.int64)], 1)

    def _compute_digest(self) -> str:
        """Return a digest of names, classes, sizes, and the first block of some files, evenly spread."""
        total = hashlib.sha256(b"image folder 1")
        step = max(1, len(self._files) // _PROBE_COUNT)
        missing: list[str] = []
        for number, (name, path) in enumerate(self._files):
            full = self._root / path
            try:
                # The size of every file, since an image that is replaced usually has another one.
                total.update(f"{name}\0{path}\0{full.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            except OSError:
                missing.append(path)
                continue
            if number % step == 0:
                with open(full, "rb") as stream:
                    total.update(stream.read(_BLOCK))
        if missing:
            raise self._build_missing_error(missing)
        return total.hexdigest()[:16]

    def _build_missing_error(self, paths: Sequence[str]) -> MLScaleError:
        # All of them at once: after a move of the data every link is broken.
        first = self._root / paths[0]
        is_link = first.is_symlink()
        return MLScaleError(
            f"{len(paths):,} of {len(self._files):,} images in {str(self._root)!r} do not exist",
            where="data.root",
            why=f"the first: {paths[0]}, " + (f"a link to {os.readlink(first)}" if is_link else "since it was listed"),
            fix=f"find {shlex.quote(str(self._root))} -xtype l -delete, which removes the links; or restore the files"
            if is_link
            else suggest_restore(first),
        )


class FolderBackend(ImageBackend):
    """Labelled images in folders: `root/train/<class>/…` and `root/val/<class>/…`, or `root/<class>/…`.

    In the second case a part of each class is held out for validation: the same files for every seed, chosen by a hash
    of their names, so that new files do not move old ones to the other side. Classes are numbered in sorted order.
    Folders in a class folder belong to the class.

    Args:
        root: the folder.
        val_fraction: part of each class that is held out where `root` has no val folder.
        group_on: a regular expression; images in whose path it matches the same text (that of its group, if it has one)
            stay on one side. None: an image is a group of its own.
        image_size: see `ImageBackend`.
        workers: threads that decode, per process.
        max_pixels: see `ImageBackend`.
        policy: see `Policy`; `augment` gets one image.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        val_fraction: float = 0.1,
        group_on: str | None = None,
        image_size: int | None = 224,
        workers: int | str = "auto",
        max_pixels: int = MAX_PIXELS,
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        super().__init__(
            image_size=image_size,
            workers=workers,
            policy=Policy(**policy),
            max_pixels=max_pixels,
        )
        self.root, self.val_fraction = Path(root).expanduser(), check_fraction(val_fraction)
        self.group_on = None if group_on is None else _compile_group(group_on)

    def _get_key_path(self, split: str) -> str:
        return "data.root"

    def build_openers(self) -> dict[str, Callable[[], SampleSource]]:
        if not self.root.is_dir():
            raise MLScaleError(
                f"the folder {str(self.root)!r} does not exist",
                where="data.root",
                why="it is a file" if self.root.exists() else f"looked for {self.root.absolute()}",
                fix="data.root=<a folder of images by class>",
            )
        if not (self.root / "train").is_dir():
            train, val = self._hold_out(list_class_images(self.root))
            return {"train": partial(FolderSource, self.root, train), "val": partial(FolderSource, self.root, val)}
        if not (self.root / "val").is_dir():
            half = format_override("data.root", str(self.root / "train"))
            raise MLScaleError(
                f"the folder {str(self.root)!r} has a train folder and no val folder",
                where="data.root",
                why="there is nothing to validate on",
                fix=f"{half}, which holds a part of it out; or make {self.root / 'val'}",
            )
        splits = [split for split in _SPLITS if (self.root / split).is_dir()]
        # Opened by the caller, which reports the problems of all splits together.
        return {split: partial(self._open_split, split) for split in splits}

    def setup(self, stage: str) -> None:
        """Open the data; a fit reports validation images of groups that training has, too."""
        super().setup(stage)
        if stage == "fit" and self.group_on is not None and not self.policy.windows:
            splits = {split: self.get_decoded_split(split) for split in ("train", "val")}
            keys = {split: held.list_keys(range(len(held))) for split, held in splits.items()}
            groups = {split: self._list_groups(names) for split, names in keys.items()}
            for line in describe_shared_groups(set(groups["train"]), groups["val"], keys["val"], "data.group_on"):
                report_once(line)

    def _list_groups(self, paths: Sequence[str]) -> list[str]:
        """Return the group of each path.

        Raises:
            MLScaleError: a path has none.
        """
        assert self.group_on is not None
        # A group in parentheses, or all that the pattern matches; an optional one may not be part of a match.
        matches = [self.group_on.search(path) for path in paths]
        groups = [None if match is None else match[match.re.groups and 1] for match in matches]
        if None in groups:
            raise MLScaleError(
                f"{groups.count(None):,} of {len(paths):,} images have no group",
                where="data.group_on",
                why=f"the pattern {self.group_on.pattern!r} finds none in {paths[groups.index(None)]!r}",
                fix="data.group_on='^[^/]+/([^_]+)_', a pattern that matches each path below the folder",
            )
        return [group for group in groups if group is not None]

    def _hold_out_groups(self, files: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        groups = self._list_groups([path for _, path in files])
        sides: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
        for file, group in zip(files, groups, strict=True):
            sides[hash_to_fraction(group) < self.val_fraction].append(file)
        if not all(sides):
            raise MLScaleError(
                f"{self.val_fraction:g} of {len(set(groups)):,} groups leave one side empty",
                where="data.val_fraction",
                why="images of a group stay on one side, by a hash of its name",
                fix="data.val_fraction=0.2, or another part; or folders train and val",
            )
        return sides

    def _open_split(self, split: str) -> SampleSource:
        return FolderSource(self.root / split, list_class_images(self.root / split))

    def _hold_out(self, files: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        if self.group_on is not None:
            return self._hold_out_groups(files)
        by_class: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for file in files:
            by_class[file[0]].append(file)
        held: set[tuple[str, str]] = set()
        for name, members in by_class.items():
            if len(members) < 2:
                raise MLScaleError(
                    f"the class {name!r} has a single image",
                    where="data.root",
                    why="one is needed to train on and one to validate on",
                    fix=f"add images to {self.root / name}, or remove it",
                )
            # At least one image on each side.
            count = min(max(1, round(len(members) * self.val_fraction)), len(members) - 1)
            held.update(sorted(members, key=lambda file: hashlib.sha256(os.fsencode(file[1])).digest())[:count])
        return [file for file in files if file not in held], [file for file in files if file in held]


def _compile_group(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise MLScaleError(
            f"data.group_on is {pattern!r}, which is not a regular expression",
            where="data.group_on",
            why=str(error),
            fix="data.group_on='([^/_]+)_', which groups by what is before the first underscore of a name",
        ) from error


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
