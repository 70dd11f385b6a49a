"""The rows of a split: images, labels, and the columns by which rows are held out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.image_tables.image_cells import ImageCells, Problem
from mlscale.data.image_tables.row_files import SPLIT_NAMES, RowFile, check_columns
from mlscale.data.image_tables.row_labels import (
    RowLabels,
    read_class_column,
    read_flag_columns,
    read_list_column,
)
from mlscale.data.table_parsing.columns import Column, DataTable, format_texts
from mlscale.data.table_parsing.table_files import convert_column
from mlscale.data.table_parsing.table_form import name_row, number_rows
from mlscale.errors import MLScaleError

_TRUTH_VALUES = {"0": "train", "false": "train", "1": "val", "true": "val"}
"""Of a column that answers whether a row is one of validation, as fastai's `valid_col`."""


@dataclass(frozen=True)
class RowSettings:
    """The settings by which tables are read.

    Args:
        image: the column of paths or bytes.
        targets: the columns of labels; several, where each is a label of its own.
        labels: the kind of label: one, several or mask.
        label_delim: what divides labels in a text.
        root: the folder of paths; None for that of each table.
        suffix: is added to each path of an image.
        cache: the folder of unpacked images.
        deciding: by key of the configuration the column that decides on which side a row is.
        times: of these columns, those of times.
    """

    image: str
    targets: tuple[str, ...]
    labels: str
    label_delim: str | None
    root: Path | None
    suffix: str
    cache: Path
    deciding: Mapping[str, str]
    times: Collection[str] = ()


@dataclass(frozen=True, eq=False)  # by identity: arrays have no equality of their own
class ImageRows:
    """All rows of a split's files.

    Attributes:
        cells: the images.
        masks: the masks, where labels are masks.
        labels: of each row, where they are not.
        table: the columns by which rows are held out, and those of classes.
        keys: the name of each row, unique.
        places: its file and its number in it.
    """

    cells: ImageCells
    masks: ImageCells | None
    labels: RowLabels
    table: DataTable
    keys: Sequence[str]
    places: Sequence[str]

    def __len__(self) -> int:
        return len(self.keys)

    def find_problem(self, row: int) -> tuple[str, Problem] | None:
        """Return what is wrong with a row, and its column; None where it can be used."""
        # The image first: without it a label does not matter.
        for cells in (self.cells, self.masks):
            if cells is not None and row in cells.problems:
                problem = cells.problems[row]
                return cells.column, problem if cells is self.cells else Problem("has no mask", problem.why)
        return ("", self.labels.problems[row]) if row in self.labels.problems else None

    def list_classes(self) -> list[str | None] | None:
        """Return the class of each row as text, None where it is missing; None where rows have no single class."""
        texts = self.labels.texts
        if self.masks is not None or any(len(row) > 1 for row in texts):
            return None
        return [row[0] if row else None for row in texts]


def read_image_rows(
    files: Sequence[RowFile],
    settings: RowSettings,
    class_names: Sequence[str],
    *,
    where: str,
    texts: Collection[str] = (),
) -> ImageRows:
    """Read the rows of files; of images their sizes alone.

    Args:
        files: of one split.
        settings: see `RowSettings`.
        class_names: of the only target, by number; empty where it has none.
        where: the key path of the files, for errors.
        texts: columns that training has as texts, and that stay so.

    Raises:
        MLScaleError: a column is missing, or holds something else; a path leaves the folder of images.
    """
    named = {"data.image_column": [settings.image], "data.target": settings.targets}
    check_columns(files, {**named, **{key: [name] for key, name in settings.deciding.items()}}, where)

    places = _list_places(files)

    def open_cells(column: str, suffix: str, *, is_unique: bool) -> ImageCells:
        return ImageCells(
            files,
            column,
            root=settings.root,
            suffix=suffix,
            is_unique=is_unique,
            cache=settings.cache,
            places=places,
            where=where,
        )

    # An image in two rows is a mistake, or should be one row with several labels; a mask may be that of several.
    cells = open_cells(settings.image, settings.suffix, is_unique=True)
    if not len(cells):
        raise MLScaleError(
            "the table has no rows",
            where=where,
            why=", ".join(file.path.name for file in files[:5]),
            fix=f"{where}=<a file with a row for each image>",
        )
    masks = open_cells(settings.targets[0], "", is_unique=False) if settings.labels == "mask" else None
    table = _read_table(files, settings, places, where=where, texts=texts)
    labels = RowLabels() if masks is not None else _read_labels(files, settings, class_names, table, where)
    return ImageRows(cells, masks, labels, table, cells.list_keys(), places)


def _read_table(
    files: Sequence[RowFile],
    settings: RowSettings,
    places: Sequence[str],
    *,
    where: str,
    texts: Collection[str],
) -> DataTable:
    """Return the columns that decide on which side a row is, and those of classes."""
    names = [] if settings.labels == "mask" else list(settings.targets)
    names = list(dict.fromkeys([*names, *settings.deciding.values()]))
    tables = [file.read_columns(names, where) for file in files] if names else []
    known, unreadable = dict[str, Column](), dict[str, str]()
    for name in names:
        column = convert_column([table.column(name) for table in tables], name in texts, name in settings.times)
        # Reported where the column is used: a list is what several labels are.
        if isinstance(column, str):
            unreadable[name] = column
        else:
            known[name] = column
    return DataTable(known, places, unreadable)


def _read_labels(
    files: Sequence[RowFile], settings: RowSettings, class_names: Sequence[str], table: DataTable, where: str
) -> RowLabels:
    name = settings.targets[0]
    if settings.labels == "one":
        if "list" in table.unreadable.get(name, ""):
            raise MLScaleError(
                f"the column {name!r} holds lists, and data.labels is one",
                where="data.target",
                why="a list has any number of labels",
                fix="data.labels=several task=multilabel",
            )
        return read_class_column(table.get_column(name, where="data.target"), name, class_names)
    # Several columns are a label each, one column is a list.
    if len(settings.targets) > 1:
        return read_flag_columns({one: table.get_column(one, where="data.target") for one in settings.targets})
    parts: list[Any] = [file.read_columns([name], where).column(name) for file in files]
    return read_list_column(parts, name, settings.label_delim, class_names, table.keys)


def _list_places(files: Sequence[RowFile]) -> list[str]:
    """Return the name of every row by its line; see `name_row`."""
    names = [file.path.name for file in files]
    # With their folders, where two files have one name.
    if len(set(names)) < len(names):
        names = [f"{file.path.parent.name}/{file.path.name}" for file in files]
    counts = [_count_rows(file) for file in files]
    return [
        name_row(name, number)
        for name, file, count in zip(names, files, counts, strict=True)
        for number in number_rows(file.path, count)
    ]


def _count_rows(file: RowFile) -> int:
    if file.table is not None:
        return int(file.table.num_rows)
    from pyarrow import parquet

    # Of the footer: the rows themselves are not read.
    return int(parquet.read_metadata(file.path).num_rows)


def read_split_column(table: DataTable, name: str) -> NDArray[Any]:
    """Return the split of each row, as text (n,).

    Args:
        table: with the column: names of splits; or 0 and 1, false and true, of which the second is validation.
        name: of the column.

    Raises:
        MLScaleError: it holds something else.
    """
    texts = format_texts(table.get_column(name, where="data.split_column"))
    known = {**SPLIT_NAMES, **_TRUTH_VALUES}
    splits = [known.get((text or "").strip().lower()) for text in texts]
    if None in splits:
        row = splits.index(None)
        raise MLScaleError(
            f"{splits.count(None):,} of {len(splits):,} rows have no split that is known",
            where="data.split_column",
            why=f"{table.keys[row]} has {texts[row]!r} as {name}; known are {', '.join(known)}; true and 1 are "
            "validation",
            fix="data.split_column=null, or write one of these",
        )
    return np.array(splits)
