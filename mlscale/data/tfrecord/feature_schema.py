"""The schema of TFRecord files: which feature is the image, the label and the key of a sample."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mlscale.data.shards.shard_index import Index
from mlscale.data.shards.system_files import SkippedFiles, report_skipped
from mlscale.data.tfrecord.record_index import RECORD, Convert, RecordIndex, UnfitListError
from mlscale.data.tfrecord.wire_format import decode_bytes_list, decode_float_list, decode_int64_list
from mlscale.errors import MLScaleError

ROLES = ("image", "label", "key")
USUAL_NAMES = {
    "one": {"image": "image/encoded", "label": "image/class/label", "key": "image/filename"},
    "several": {"image": "image/encoded", "label": "image/class/label", "key": "image/filename"},
    "mask": {"image": "image/encoded", "label": "image/segmentation/class/encoded", "key": "image/filename"},
}
"""TensorFlow's names of the features by the kind of label; those of `mlscale prepare`."""
_TYPES = {"image": ("bytes",), "label": ("int64", "bytes"), "key": ("bytes", "int64")}
IMAGE_MEMBER = "jpg"
LABEL_MEMBERS = {"one": "cls", "several": "json", "mask": "mask.png"}
"""The extensions under which features are read; decoders of images look at the content."""
_MAX_NAMES = 12
AGAIN = "records whose key an earlier one has"


def apply_schema(
    index: Index, schema: Mapping[str, str | None], *, labels: str, extra: Sequence[str], verify: bool, where: str
) -> RecordIndex:
    """Return an index whose columns are those of a tar shard with an image, a label and `extra` features.

    Image and label have TensorFlow's usual names where the schema leaves them open.

    Args:
        index: of TFRecord files, as it is scanned.
        schema: the feature of each of `ROLES`; None or absent for the usual one, and for numbers as keys.
        labels: 'one', 'several' or 'mask'.
        extra: further features, whose values become texts: weights, slices.
        verify: compare the checksum of each record whose image is read.
        where: the key path of the split, for errors.

    Raises:
        MLScaleError: the first record lacks a feature or has another type; an unknown role.
    """
    if unknown := [role for role in schema if role not in ROLES]:
        raise MLScaleError(
            f"data.schema has {unknown[0]!r}",
            where="data.schema",
            why=f"its names are: {', '.join(ROLES)}",
            fix="'data.schema={image: image/encoded, label: image/class/label}'",
        )
    features = _Features(index)
    image = features.find_feature("image", schema.get("image") or USUAL_NAMES[labels]["image"])
    label = features.find_feature("label", schema.get("label") or USUAL_NAMES[labels]["label"])
    key = features.find_feature("key", name) if (name := schema.get("key")) else None
    columns = [image, label, *(features.find_column(name) for name in extra)]
    # Several labels may be none, and then their list is not written.
    needed = {
        "image": image,
        **({} if labels == "several" else {"label": label}),
        **({} if key is None else {"key": key}),
    }
    for role, column in needed.items():
        _expect_in_all(index, role, column, where)
    names = [IMAGE_MEMBER, LABEL_MEMBERS[labels], *(name.lower() for name in extra)]
    record = index.extensions.index(RECORD)
    kinds = [index.extensions[column].partition(" ")[0] for column in columns]
    converts: list[Convert] = [_take_bytes, _bind_label(labels, kinds[1]), *map(_bind_text, kinds[2:])]
    # Copies, so that the columns of other features, such as boxes, do not stay in memory.
    offsets, sizes = index.offsets[:, columns], index.sizes[:, columns]
    if labels == "several":
        # A list without values is not written: its sample has none of the classes.
        offsets[:, 1] = np.where(offsets[:, 1] < 0, index.offsets[:, record], offsets[:, 1])
    result = RecordIndex(
        shards=index.shards,
        keys=index.keys,
        shard=index.shard,
        extensions=tuple(names),
        offsets=offsets,
        sizes=sizes,
        contents=index.contents,
        states=index.states,
        records=np.stack([index.offsets[:, record], index.sizes[:, record]], axis=1),
        converts=tuple(converts),
        checked=frozenset(({0, 1} if labels == "mask" else {0}) if verify else ()),
        small=None if index.small is None else index.small.select_columns(columns),
    )
    if key is None:
        return result
    keys = _read_keys(index, key)
    _report_repeated(keys, where)
    return replace(result, keys=keys)


class _Features:
    """The features of the records, by which a schema is checked; the types are those of the first record."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._columns: dict[str, int] = {}
        # Those of the first record come last, so that its types count; a list without values is in none.
        for column in np.argsort(index.offsets[0] >= 0, kind="stable").tolist():
            if (name := index.extensions[column]) != RECORD:
                self._columns[name.partition(" ")[2]] = column

    def find_feature(self, role: str, name: str) -> int:
        """Return the column of the feature that has a role.

        Raises:
            MLScaleError: there is none of this name, or it has another type.
        """
        column = self.find_column(name, f"data.schema.{role}")
        kind = self._index.extensions[column].partition(" ")[0]
        if kind not in _TYPES[role]:
            raise MLScaleError(
                f"the feature {name!r} has values of type {kind}",
                where=f"data.schema.{role}",
                why=f"{'an image' if role == 'image' else f'a {role}'} is {' or '.join(_TYPES[role])}; "
                f"the records have: {self._describe_features()}",
                fix=f"data.schema.{role}=<one of these>",
            )
        return column

    def find_column(self, name: str, where: str = "data.schema") -> int:
        """Return the column of a feature.

        Raises:
            MLScaleError: there is none of this name.
        """
        if name not in self._columns:
            raise MLScaleError(
                f"no record has a feature {name!r}",
                where=where,
                why=f"they have: {self._describe_features()}",
                fix=f"{where}=<one of these>",
            )
        return self._columns[name]

    def _describe_features(self) -> str:
        names = [
            f"{name} ({self._index.extensions[column].partition(' ')[0]})" for name, column in self._columns.items()
        ]
        return ", ".join(names[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else "")


def _expect_in_all(index: Index, role: str, column: int, where: str) -> None:
    if not (absent := index.offsets[:, column] < 0).any():
        return
    name = index.extensions[column].partition(" ")[2]
    raise MLScaleError(
        f"{int(absent.sum()):,} of {len(index):,} records have no feature {name!r}",
        where=f"data.schema.{role}",
        why=f"the first is {index.get_sample_name(int(np.argmax(absent)))} of {where}",
        fix="data.schema.key=null   names samples by the numbers of their records"
        if role == "key"
        else f"data.schema.{role}=<another feature>, or write an Example with its {role} for every sample",
    )


def _read_keys(index: Index, column: int) -> tuple[str, ...]:
    write = _bind_text(index.extensions[column].partition(" ")[0])
    return tuple(write(content).decode("utf-8", "surrogateescape") for content in index.read_column(column))


def _report_repeated(keys: Sequence[str], where: str) -> None:
    """Report names that several records have, as names that come again in a tar are."""
    # Nothing is lost, but a list of bad samples, or of weights, can't name one of them alone.
    repeated = [key for key, count in Counter(keys).items() if count > 1]
    if repeated:
        records = len(keys) - len(set(keys))
        named = {AGAIN: SkippedFiles(records, f"{repeated[0]!r} (data.schema.key=null names records by their numbers)")}
        report_skipped(named, where=where)


def _take_bytes(content: bytes) -> bytes:
    """Return the only value of a BytesList."""
    values = decode_bytes_list(content)
    if len(values) != 1:
        raise ValueError(f"it has {len(values)} values, and an image is one")
    return values[0]


def _bind_label(labels: str, kind: str) -> Convert:
    """Return a function that writes a label as a member of a tar shard."""
    if labels == "mask":
        # An encoded mask is read as an image is.
        return _take_bytes
    return partial(_write_one_label if labels == "one" else _write_several_labels, kind)


def _write_one_label(kind: str, content: bytes) -> bytes:
    values = _list_values(kind, content)
    if len(values) != 1:
        raise UnfitListError(
            f"it has {len(values)} values, and data.labels=one is a single class",
            "data.labels=several\ndata.schema.label=<a feature of one value>",
        )
    # As the content of a `.cls` member: a number, or the name of a class.
    return values[0] if isinstance(values[0], bytes) else str(values[0]).encode()


def _write_several_labels(kind: str, content: bytes) -> bytes:
    values = _list_values(kind, content)
    return json.dumps([value.decode() if isinstance(value, bytes) else value for value in values]).encode()


def _bind_text(kind: str) -> Convert:
    """Return a function that writes the values of a list as text, separated by blanks."""

    def write(content: bytes) -> bytes:
        return b" ".join(
            value if isinstance(value, bytes) else str(value).encode() for value in _list_values(kind, content)
        )

    return write


def _list_values(kind: str, content: bytes) -> Sequence[bytes | int | float]:
    if kind == "bytes":
        return decode_bytes_list(content)
    return decode_int64_list(content) if kind == "int64" else decode_float_list(content).tolist()
