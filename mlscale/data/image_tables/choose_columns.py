"""Choose the columns of images and of labels: as named, or as a table shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.image_tables.find_rows import FoundRows
from mlscale.data.image_tables.image_cells import is_image_type
from mlscale.data.image_tables.row_files import RowFile
from mlscale.data.image_tables.stored_features import StoredFeatures, parse_schema_features
from mlscale.data.shards.system_files import report_once
from mlscale.data.table_parsing.columns import DataTable
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE_NAMES = (
    "image", "img", "file_name", "filename", "file", "path", "image_path", "img_path", "filepath", "file_path",
    "image_file", "image_name", "image_id",
)  # fmt: skip
_LABEL_NAMES = {
    "one": ("label", "class", "target", "category", "labels"),
    "several": ("labels", "tags", "label", "classes"),
    "mask": ("mask", "mask_path", "label", "annotation", "segmentation", "segmentation_mask"),
}
"""The usual names, the most usual first."""


@dataclass(frozen=True)
class ChosenColumns:
    """The columns that are read.

    Attributes:
        image: of paths or bytes.
        targets: of labels; several, where each is a label of its own.
        class_names: of the only target, by number; empty where it has none.
    """

    image: str
    targets: tuple[str, ...]
    class_names: tuple[str, ...]


def collect_features(listed: FoundRows, files: Sequence[RowFile]) -> StoredFeatures:
    """Return the types of a split's columns: of what `datasets` has recorded, or else of the folder's README.md."""
    if listed.features.is_of_card or listed.features == StoredFeatures():
        stored = parse_schema_features(files[0].schema.metadata)
        return stored if stored != StoredFeatures() else _drop_wrong_types(listed.features, files[0].schema)
    return listed.features


def _drop_wrong_types(features: StoredFeatures, schema: pa.Schema) -> StoredFeatures:
    """Return the types of a README.md that columns can have: it may be of another version of the data."""
    hold_images = [name for name in schema.names if is_image_type(schema.field(name).type)]
    # Where no column has bytes, one of paths may be that of images.
    images = [name for name in features.images if name in (hold_images or schema.names)]
    names = {name: names for name, names in features.class_names.items() if name in schema.names}
    return replace(features, images=tuple(images), class_names=names)


def choose_columns(
    file: RowFile, features: StoredFeatures, image: str | None, targets: Sequence[str], kind: str, where: str
) -> ChosenColumns:
    """Return the columns of a split.

    Args:
        file: the first of the training files.
        features: what is recorded of its columns.
        image, targets: as they are configured; None and empty where they are not.
        kind: of the labels.
        where: the key path of the file.

    Raises:
        MLScaleError: a named column is not found, or none is named and none fits.
    """
    # Named columns first: an error shows the names that there are.
    require_columns(file, {"data.image_column": [image] if image else [], "data.target": targets})
    chosen = image or _find_image_column(file, features, targets, kind, where)
    labels = tuple(targets) or (_find_label_column(file, features, chosen, kind),)
    if chosen in labels:
        raise MLScaleError(
            f"the column {chosen!r} is both the image and its label",
            where="data.target",
            why=f"the columns are: {_list_names(file)}",
            fix="data.target=<another column>",
        )
    if len(labels) > 1 and kind != "several":
        raise MLScaleError(
            f"{len(labels)} columns are named, and data.labels is {kind}",
            where="data.target",
            why="several columns are a label each, 1 where a sample has it",
            fix="data.labels=several",
        )
    return ChosenColumns(chosen, labels, features.class_names.get(labels[0], ()) if len(labels) == 1 else ())


def check_class_names(
    columns: ChosenColumns, features: StoredFeatures, files: Sequence[RowFile], where: str
) -> ChosenColumns:
    """Return the columns, without the names of a README.md where the data has classes that it does not name.

    Args:
        columns: as chosen.
        features: what is recorded.
        files: of all splits.
        where: the key path of the files, for errors.
    """
    # What `datasets` itself has recorded is right, and another number is one of a corrupt row.
    if not columns.class_names or not features.is_of_card:
        return columns
    name = columns.targets[0]
    largest = max((_find_largest(file, name, where) for file in files if name in file.schema.names), default=0)
    if largest < len(columns.class_names):
        return columns
    report_once(
        f"data      README.md names {len(columns.class_names)} classes of {name!r}, and the data has the number "
        f"{largest}: classes go by their numbers"
    )
    return replace(columns, class_names=())


def _find_largest(file: RowFile, name: str, where: str) -> int:
    """Return the largest class number of a column; -1 where it holds none."""
    import pyarrow as pa
    from pyarrow import compute

    values: Any = file.read_columns([name], where).column(name)
    if _is_list(file, name):
        values = compute.list_flatten(values)
    if not pa.types.is_integer(values.type):
        return -1
    largest = compute.max(values).as_py()
    return -1 if largest is None else int(largest)


def require_columns(file: RowFile, names_by_key: dict[str, Sequence[str]]) -> None:
    """Raise for columns that keys of the configuration name and a file does not have, all at once.

    Raises:
        MLScaleError: there are such columns.
    """
    # Whatever they hold: only the names are compared.
    DataTable({name: np.empty(0) for name in file.schema.names}, []).require_columns(names_by_key)


def _find_image_column(file: RowFile, features: StoredFeatures, targets: Sequence[str], kind: str, where: str) -> str:
    # The picture of a mask is an image, too.
    labels = set(targets) | (set(_LABEL_NAMES["mask"]) if kind == "mask" and not targets else set())
    names: list[str] = [name for name in file.schema.names if name not in labels]
    stored = [name for name in features.images if name in names]
    stored = stored or [name for name in names if is_image_type(file.schema.field(name).type)]
    usual = [name for word in _IMAGE_NAMES for name in names if name.lower() == word]
    # Of several by its usual name: a table may have a column of thumbnails, too.
    if stored or usual:
        return next((name for name in usual if not stored or name in stored), (stored or usual)[0])
    if looks := [name for name in names if _contains_file_names(file, name, where)]:
        return looks[0]
    raise MLScaleError(
        "no column of images is found",
        where="data.image_column",
        why=f"none holds names of image files, or bytes; the columns are: {_list_names(file)}",
        fix="data.image_column=<a column of paths or bytes>",
    )


def _contains_file_names(file: RowFile, name: str, where: str) -> bool:
    import pyarrow as pa

    if not pa.types.is_string(file.schema.field(name).type) or file.table is None:
        return False
    # Of the first rows all: a column of notes may name a file in one of them.
    cells = file.table.column(name).slice(0, 20).to_pylist()
    return bool(cells) and all(cell is not None and is_image_file(cell) and "." in cell for cell in cells)


def _find_label_column(file: RowFile, features: StoredFeatures, image: str, kind: str) -> str:
    recorded = [name for name in (features.images if kind == "mask" else features.class_names) if name != image]
    names: list[str] = [name for name in file.schema.names if name != image]
    usual = [name for word in _LABEL_NAMES[kind] for name in names if name.lower() == word]
    if kind != "mask":
        # Lists of classes are several labels, and classes are one.
        is_list = [name for name in recorded if _is_list(file, name)]
        recorded = is_list if kind == "several" else [name for name in recorded if name not in is_list]
    # What the file records is certain; a usual name is a guess.
    if len(recorded) == 1:
        return recorded[0]
    if usual:
        return usual[0]
    raise MLScaleError(
        "no column of labels is named",
        where="data.target",
        why=f"the columns are: {_list_names(file)}",
        fix="data.target=<the column of labels>",
    )


def _is_list(file: RowFile, name: str) -> bool:
    import pyarrow as pa

    kind = file.schema.field(name).type if name in file.schema.names else pa.null()
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _list_names(file: RowFile) -> str:
    names = list(map(repr, file.schema.names))
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
