"""Image data in a user's tables: paths or bytes of images, and columns of labels."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import read_json, write_json
from mlscale.contracts import add_checksum, has_right_checksum
from mlscale.data.cache_folder import get_cache_dir
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.image_tables.image_rows import ImageRows, RowSettings, read_image_rows, read_split_column
from mlscale.data.image_tables.row_files import IMAGE, TARGETS, RowFile, find_rows, get_single_split, open_row_file
from mlscale.data.image_tables.row_labels import are_numbered
from mlscale.data.image_tables.table_source import TableSource
from mlscale.data.images.labelled_images import ImageBackend
from mlscale.data.inspection.leaks import describe_split_leaks
from mlscale.data.order.policy import Policy, TolerantPolicyArguments
from mlscale.data.shards.member_digests import RecordedDigests
from mlscale.data.shards.system_files import report_once
from mlscale.data.table_parsing.columns import DataTable
from mlscale.data.table_parsing.hold_out import HoldOut
from mlscale.data.table_parsing.table_files import require_package
from mlscale.errors import MLScaleError, call_all

Chosen = tuple[ImageRows, NDArray[np.int64]]
"""Rows, and the numbers of those that a split has."""


class ImageTableBackend(ImageBackend):
    """Labelled images in tables: CSV, JSON Lines, Parquet or Arrow files with a row for each image.

    A cell of the image's column is a path, or the bytes of a file, or a struct of both. Numbers of classes have the
    names that Hugging Face's `datasets` has recorded in Arrow and Parquet files.

    Args:
        train: paths or globs of files; or a folder, of Parquet files or one that `datasets` reads, whose other splits
            are those of `val` and `test`.
        val: the same, for validation; None takes the split of the folder or of `split_column`, or holds rows out.
        test: the same; None for that of the folder or of `split_column`, if it has one.
        image_column: of paths or bytes.
        target: the column of labels, or several of 0 and 1; None is label, labels or mask, by `labels`.
        labels: the labels of each image: 'one' class, 'several', or a class for each pixel, by the path or the bytes
            of a 'mask'.
        label_delim: what divides several labels in a text.
        classes: see `ImageBackend`.
        image_root: the folder that paths are relative to, and may not leave; None for that of each table.
        suffix: is added to each path of an image.
        split_column: a column with the split of each row.
        val_fraction: part of the rows that is held out where nothing names validation rows.
        group_on: a column; rows with the same value in it stay on one side.
        time_on: a column of times; the latest rows are held out.
        stratify: hold out the same part of each class.
        cache_dir: where images of Parquet files are unpacked; None for the cache.
        image_size: see `ImageBackend`.
        workers: threads that decode, per process.
        max_pixels: see `ImageBackend`.
        policy: see `Policy`; `augment` gets one image. A bad sample is a row without an image or a label, too.
    """

    def __init__(
        self,
        train: str | os.PathLike[str] | Sequence[str],
        val: str | os.PathLike[str] | Sequence[str] | None = None,
        test: str | os.PathLike[str] | Sequence[str] | None = None,
        image_column: str = IMAGE,
        target: str | Sequence[str] | None = None,
        labels: str = "one",
        label_delim: str | None = None,
        classes: int | Sequence[str] | None = None,
        image_root: str | os.PathLike[str] | None = None,
        suffix: str | None = None,
        split_column: str | None = None,
        val_fraction: float = 0.1,
        group_on: str | None = None,
        time_on: str | None = None,
        stratify: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        image_size: int | None = 224,
        workers: int | str = "auto",
        max_pixels: int = MAX_PIXELS,
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        super().__init__(
            Policy(**policy),
            image_size=image_size,
            workers=workers,
            labels=labels,
            classes=classes,
            max_pixels=max_pixels,
        )
        specs = {"train": train, "val": val, "test": test}
        self._specs = {split: _list_paths(spec) for split, spec in specs.items() if spec is not None}
        self._split_column = split_column
        targets = (TARGETS[labels],) if target is None else (target,) if isinstance(target, str) else tuple(target)
        self._cache = get_cache_dir() if cache_dir is None else Path(cache_dir).expanduser()
        self.hold_out = HoldOut(val_fraction, group_on, time_on, stratify)
        self._check_settings(image_column, targets)
        deciding = {"data.group_on": group_on, "data.time_on": time_on, "data.split_column": split_column}
        self._settings = RowSettings(
            image_column,
            targets,
            labels,
            label_delim,
            None if image_root is None else Path(image_root).expanduser(),
            suffix or "",
            self._cache,
            {key: name for key, name in deciding.items() if name is not None},
            () if time_on is None else (time_on,),
        )
        self.split_leaks: list[str] = []

    def build_openers(self) -> dict[str, Callable[[], TableSource]]:
        require_package("pyarrow", "table", "data.train")
        files = self._open_files()
        targets = self._settings.targets
        # The training split decides: others are read by its types and classes.
        names = files["train"][0].read_class_names(targets[0]) if len(targets) == 1 else ()

        def read_rows(split: str, texts: frozenset[str] | tuple[()]) -> ImageRows:
            return read_image_rows(files[split], self._settings, names, where=self._get_key_path(split), texts=texts)

        first = read_rows("train", ())
        others = {split: partial(read_rows, split, first.table.texts) for split in files if split != "train"}
        # Problems of all splits are reported together.
        rows = {"train": first, **call_all(others)}
        chosen = self._choose_splits({split: (part, np.arange(len(part))) for split, part in rows.items()})
        # By the training split alone: in another one a class may be missing.
        numbered = are_numbered(first.labels)
        return {
            split: partial(
                TableSource,
                part,
                numbers,
                numbered=numbered,
                skip_bad=self.policy.skip,
                where=self._get_key_path(split),
                digests=self._read_digests(),
            )
            for split, (part, numbers) in chosen.items()
        }

    def record_digests(self) -> RecordedDigests:
        """Record a digest of each image where it is, or compare it with the one that was recorded before.

        Raises:
            MLScaleError: images are not as they were, or the digests can't be written.
        """
        before, opened = self._read_digests(), call_all(self.build_openers())
        digests = {key: digest for source in opened.values() for key, digest in source.compute_digests().items()}
        self._digest_path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._digest_path, add_checksum({"digests": {**before, **digests}}))
        new = len(digests.keys() - before.keys())
        return RecordedDigests(new, len(digests) - new, len(digests), (self._digest_path.parent,), unit="image")

    @property
    def _digest_path(self) -> Path:
        places = sorted(os.path.abspath(path) for spec in self._specs.values() for path in spec)
        return (
            get_cache_dir() / "image_digests" / f"{hashlib.sha256(json.dumps(places).encode()).hexdigest()[:16]}.json"
        )

    def _read_digests(self) -> dict[str, int]:
        """Return the recorded digests of images, by key.

        Raises:
            MLScaleError: their file is not as it was written.
        """
        if not self._digest_path.exists():
            return {}
        document = read_json(self._digest_path)
        if not has_right_checksum(document):
            raise MLScaleError(
                "the recorded digests of images can't be read",
                where=str(self._digest_path),
                why="its SHA-256 is another; without it, mlscale prepare records them again",
                fix=f"rm {self._digest_path}",
            )
        return dict(document["digests"])

    def setup(self, stage: str) -> None:
        """Open the data; a fit reports groups that training and validation share, and times that overlap."""
        super().setup(stage)
        if stage == "fit" and not self.policy.windows:
            for line in self.split_leaks:
                report_once(line)

    def _get_key_path(self, split: str) -> str:
        # A split that no key names comes out of the training files.
        return f"data.{split}" if split in self._specs else "data.train"

    def _check_settings(self, image_column: str, targets: Sequence[str]) -> None:
        # Before any file is read: tables may be large.
        self.hold_out.check_settings(has_val="val" in self._specs)
        if self.hold_out.stratify and self.labels != "one":
            raise MLScaleError(
                f"data.stratify does not go with data.labels={self.labels}",
                where="data.stratify",
                why="a sample has no single class",
                fix="data.stratify=false",
            )
        if self._split_column is not None and "val" in self._specs:
            raise MLScaleError(
                "data.val and data.split_column both name validation rows",
                where="data.split_column",
                why="one of them decides on which side a row is",
                fix="data.split_column=null, or data.val=null",
            )

        if image_column in targets:
            raise MLScaleError(
                f"the column {image_column!r} is both the image and its label",
                where="data.target",
                fix="data.target=<another column>",
            )
        if len(targets) > 1 and self.labels != "several":
            raise MLScaleError(
                f"{len(targets)} columns are named, and data.labels is {self.labels}",
                where="data.target",
                why="several columns are a label each, 1 where a sample has it",
                fix="data.labels=several",
            )

    def _open_files(self) -> dict[str, list[RowFile]]:
        """Return the files of each split."""
        listed = call_all(
            {split: partial(find_rows, spec, f"data.{split}", self._cache) for split, spec in self._specs.items()}
        )
        # A folder with a single split of another name is that of training, too.
        folder = listed["train"]
        splits = dict(folder) if "train" in folder else {"train": get_single_split(folder, "data.train")}
        # What is named by a key of its own wins over the folder's split of that name.
        for split in listed.keys() - {"train"}:
            splits[split] = get_single_split(listed[split], f"data.{split}")

        def open_split(split: str) -> list[RowFile]:
            return [open_row_file(path, self._get_key_path(split)) for path in splits[split]]

        return call_all({split: partial(open_split, split) for split in splits})

    def _choose_splits(self, given: Mapping[str, Chosen]) -> dict[str, Chosen]:
        """Return the rows of train and val, and of test if there are any, by column or by holding out."""
        chosen = dict(given)
        rows, numbers = chosen["train"]
        if self._split_column is not None:
            # A test set of its own is not replaced.
            own = {split: given[split] for split in given if split == "test"}
            chosen = {**self._divide_by_column(rows, self._split_column), **own}
            rows, numbers = chosen["train"]
        if "val" in chosen:
            self._report_leaks(chosen["train"], chosen["val"])
            return _order_splits(chosen)
        is_held = self._choose_held_out(rows, numbers)
        chosen |= {"train": (rows, numbers[~is_held]), "val": (rows, numbers[is_held])}
        return _order_splits(chosen)

    def _divide_by_column(self, rows: ImageRows, column: str) -> dict[str, Chosen]:
        """Return the rows of each split that the column names."""
        names = read_split_column(rows.table, column)
        parts = {name: (rows, np.flatnonzero(names == name)) for name in ("train", "val", "test")}
        if not len(parts["train"][1]):
            raise MLScaleError(
                f"the column {column!r} names no row of training",
                where="data.split_column",
                why=f"it has {', '.join(sorted(set(names.tolist())))} alone",
                fix="data.split_column=null, or write train into it",
            )
        return {name: part for name, part in parts.items() if len(part[1])}

    def _choose_held_out(self, rows: ImageRows, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        classes = rows.list_classes() if self.hold_out.stratify else None
        # By name: a row stays on its side whatever other rows there are.
        contents = [rows.keys[number] for number in numbers.tolist()]
        labels = None if classes is None else [classes[number] for number in numbers.tolist()]
        return self.hold_out.choose_rows(_select_rows((rows, numbers)), contents, labels)

    def _report_leaks(self, train: Chosen, val: Chosen) -> None:
        # Only now is it known that a folder or a column has validation rows.
        self.hold_out.check_settings(has_val=True)
        if not self.hold_out.columns:
            return
        tables = [_select_rows(part) for part in (train, val)]
        self.split_leaks = describe_split_leaks(tables[0], tables[1], self.hold_out.group_on, self.hold_out.time_on)


def _select_rows(chosen: Chosen) -> DataTable:
    rows, numbers = chosen
    mask = np.zeros(len(rows), np.bool_)
    mask[numbers] = True
    return rows.table.select_rows(mask)


def _order_splits(chosen: Mapping[str, Chosen]) -> dict[str, Chosen]:
    # The order is part of the data's version.
    return {split: chosen[split] for split in ("train", "val", "test") if split in chosen}


def _list_paths(spec: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    return [os.fspath(spec)] if isinstance(spec, str | os.PathLike) else [os.fspath(path) for path in spec]
