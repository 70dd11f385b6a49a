"""The sources of a split's samples: tar shards or a folder of files."""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import reduce
from operator import getitem
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.shards.member_decoder import PICKLED, check_extension, decode_value
from mlscale.data.shards.shard_index import NO_DIGEST, CorruptMemberError, Index
from mlscale.data.shards.system_files import report_once
from mlscale.errors import MLScaleError

Label = int | str


class SampleSource(Protocol):
    """Samples with random access, encoded."""

    version: str
    """Digest of what the split holds."""
    raw_labels: list[Label]
    """The label of each sample, as it is written."""

    def __len__(self) -> int: ...

    def get_key(self, sample: int) -> str:
        """Return the name of a sample, unique in its split."""

    def read_image(self, sample: int) -> tuple[str, bytes]:
        """Return extension and bytes of a sample's image. May be called by several threads."""


def read_encoded_image(source: SampleSource, sample: int) -> tuple[str, bytes]:
    """Return extension and bytes of a sample's image, from any source.

    Raises:
        BadSample: the source can't read it, and its class does not know the errors of mlscale.
        MLScaleError: as the source raises it.
    """
    try:
        return source.read_image(sample)
    except MLScaleError:
        raise
    # As a BadSample, so that `data.on_bad_sample` decides and the sample has a name, whatever its library raises.
    except Exception as error:
        from mlscale.data.order.bad_samples import BadSample  # with torch, which is not needed to read

        where = f"{type(source).__name__}.read_image"
        why = f"{type(error).__name__}: {error}"
        raise BadSample(sample, source.get_key(sample), "cannot be read", where=where, why=why) from error


@runtime_checkable
class MarkedSource(Protocol):
    """Samples that can be compared without reading all of them. A source of another package need not be one."""

    @property
    def is_remote(self) -> bool:
        """True if reading a sample may have to fetch it from another machine."""

    def list_image_marks(self) -> NDArray[np.int64]:
        """Return the bytes of each image, and its CRC-32 where it is recorded, else -1; int64 (n, 2), not read."""


@runtime_checkable
class ListedLabels(Protocol):
    """Samples with several labels each, of which all are read at once."""

    def get_key(self, sample: int) -> str:
        """Return the name of a sample, unique in its split."""

    def read_labels(self) -> tuple[str, list[bytes]]:
        """Return extension and bytes of the labels of all samples."""


@runtime_checkable
class LocatedSource(Protocol):
    """Samples that are in the rows of a table, which errors name."""

    def locate_sample(self, sample: int) -> str:
        """Return the file, the row and the column of a sample's image."""


class TarSource:
    """A split in tar shards.

    Args:
        index: the shards' index.
        image_key: extension of the image member; several that are alternatives are joined by ';'. None finds it.
        label_key: extension of the label member.
        label_field: of the JSON of a label member, its label: a key, or several that are joined by '.'; None for all.
        one: each sample has one class, and all are read; otherwise callers read the label members themselves.
        skip_incomplete: leave out samples that lack their image or label, and report how many; else they are an error.
        allow: 'pickle' decodes pickled members.
        where: the key path of the split, for errors.

    Raises:
        MLScaleError: a member is missing, ambiguous, or not allowed; a label is neither a whole number nor text.
    """

    def __init__(
        self,
        index: Index,
        *,
        image_key: str | None,
        label_key: str,
        allow: Collection[str],
        where: str,
        one: bool = True,
        skip_incomplete: bool = False,
        label_field: str | None = None,
    ) -> None:
        self._index, self._skip_incomplete = index, skip_incomplete
        self._where, self._label_field = where, label_field
        label_key = label_key.lower()
        self._columns = self._find_image_columns(image_key, label_key, where)
        for column in self._columns:
            # Before any member is read, since a pickle runs code when it is decoded.
            check_extension(index.extensions[column], allow=allow, where="data.image_key")
        self._label_column = self._find_label_column(label_key, allow, where)
        # Everything below may rely on every sample having an image and a label.
        self._index = self._select_complete(label_key, where)
        self._column = self._choose_image_columns(where)
        self.raw_labels: list[Label] = self._decode_labels(label_key, where) if one else []
        self.version = self._index.compute_data_version()

    @property
    def index(self) -> Index:
        """The index of the samples that are used."""
        return self._index

    @property
    def is_remote(self) -> bool:
        return any(shard.is_remote for shard in self._index.shards)

    def __len__(self) -> int:
        return len(self._index)

    def get_key(self, sample: int) -> str:
        return self._index.get_sample_name(sample)

    def describe_image(self, sample: int) -> str:
        """Return what the part of a sample that is its image is called in messages."""
        return self._index.describe_column(int(self._column[sample]))

    def read_image(self, sample: int) -> tuple[str, bytes]:
        return self._read_member(sample, int(self._column[sample]))

    def list_image_marks(self) -> NDArray[np.int64]:
        rows = np.arange(len(self))
        marks = np.full((len(self), 2), NO_DIGEST, np.int64)
        marks[:, 0] = self._index.sizes[rows, self._column]
        if self._index.digests is not None:
            marks[:, 1] = self._index.digests[rows, self._column]
        return marks

    def read_label(self, sample: int) -> tuple[str, bytes]:
        """Return extension and bytes of a sample's label member. May be called by several threads."""
        return self._read_member(sample, self._label_column)

    def read_labels(self) -> tuple[str, list[bytes]]:
        """Return extension and bytes of the label members of all samples, or of their field. For small ones.

        Raises:
            MLScaleError: a member lacks the field.
        """
        contents = self._index.read_column(self._label_column)
        if self._label_field is not None:
            contents = [self._take_field(sample, content, self._label_field) for sample, content in enumerate(contents)]
        return self._index.extensions[self._label_column], contents

    def compute_label_checksums(self) -> NDArray[np.uint32]:
        """Return the CRC-32 of each label member, (n,). Members are read only if it is not recorded."""
        return self._index.compute_checksums(self._label_column)

    def _read_member(self, sample: int, column: int) -> tuple[str, bytes]:
        try:
            return self._index.extensions[column], self._index.read_member(sample, column)
        # As a BadSample, so that `data.on_bad_sample` decides.
        except CorruptMemberError as error:
            from mlscale.data.order.bad_samples import BadSample  # with torch, which is not needed to read

            where = f"its {self._index.describe_column(column)} in {error.where}"
            raise BadSample(sample, self.get_key(sample), "is corrupt", where=where, why=error.why) from error

    def _find_image_columns(self, image_key: str | None, label_key: str, where: str) -> list[int]:
        extensions = self._index.extensions
        if image_key is None:
            wanted = [extension for extension in extensions if is_image_file(extension) and extension != label_key]
            # Arrays are used where there is no image; pickles too, to be refused with the reason.
            arrays = ("npy", "ten", "tb", *PICKLED)
            wanted = wanted or [extension for extension in extensions if extension in arrays and extension != label_key]
        else:
            wanted = [extension.lower() for extension in image_key.split(";") if extension.lower() in extensions]
        if not wanted:
            raise MLScaleError(
                "the samples have no image" if image_key is None else f"the samples have no '.{image_key}' member",
                where=where if image_key is None else "data.image_key",
                why=f"their members are: {_format_extensions(extensions)}",
                fix=f"data.image_key=<one of {_format_extensions(extensions)}>",
            )
        return [extensions.index(extension) for extension in wanted]

    def _select_complete(self, label_key: str, where: str) -> Index:
        """Return the index of the samples that have an image and a label.

        Raises:
            MLScaleError: a sample is incomplete, and not to be skipped; or all are.
        """
        index = self._index
        images = _format_extensions([index.extensions[column] for column in self._columns])
        lacking: dict[str, NDArray[np.bool_]] = {
            images: np.logical_and.reduce(index.offsets[:, self._columns] < 0, axis=1),
            f".{label_key}": index.offsets[:, self._label_column] < 0,
        }
        for member, absent in lacking.items():
            # If all samples lack it the key is wrong, and skipping would leave none.
            if absent.any() and (not self._skip_incomplete or absent.all()):
                raise self._build_missing_error(absent, member, where)
        incomplete = lacking[images] | lacking[f".{label_key}"]
        if not incomplete.any():
            return index
        if incomplete.all():
            raise self._build_missing_error(incomplete, f"{images} and .{label_key}", where)
        counts = ", ".join(f"without {member}: {int(absent.sum()):,}" for member, absent in lacking.items())
        report_once(
            f"data      {where}: skipped incomplete samples: {int(incomplete.sum()):,} of {len(index):,} ({counts}), "
            f"the first: {index.get_sample_name(int(np.argmax(incomplete)))}"
        )
        return index.select_samples(~incomplete)

    def _choose_image_columns(self, where: str) -> NDArray[np.intp]:
        """Return the column of each sample's image."""
        present = self._index.offsets[:, self._columns] >= 0
        counts = present.sum(axis=1)
        names = [self._index.extensions[column] for column in self._columns]
        if (counts > 1).any():
            name = self._index.get_sample_name(int(np.argmax(counts > 1)))
            raise MLScaleError(
                "it is not clear which member is the image",
                where=where,
                why=f"sample {name} has several: {_format_extensions(names)}",
                fix=f"data.image_key={min(names, key=len)}",
            )
        columns: NDArray[np.intp] = np.asarray(self._columns, np.intp)[present.argmax(axis=1)]
        return columns

    def _find_label_column(self, label_key: str, allow: Collection[str], where: str) -> int:
        """Return the column of labels."""
        extensions = self._index.extensions
        if label_key not in extensions:
            raise MLScaleError(
                f"the samples have no label '.{label_key}'",
                where=where,
                why=f"their members are: {_format_extensions(extensions)}",
                fix=f"data.label_key=<one of {_format_extensions(extensions)}>"
                + "\ndata.label_field=<a key of every sample's JSON>" * ("json" in extensions),
            )
        check_extension(label_key, allow=allow, where="data.label_key")
        return extensions.index(label_key)

    def _decode_labels(self, label_key: str, where: str) -> list[Label]:
        _, contents = self.read_labels()
        # Most contents are those of one of a few classes.
        known = {
            content: self._decode_sample_label(content, label_key, contents, where)
            for content in dict.fromkeys(contents)
        }
        return list(map(known.__getitem__, contents))

    def _take_field(self, sample: int, content: bytes, field: str) -> bytes:
        try:
            value = reduce(getitem, field.split("."), json.loads(content))
            if value is None:  # json.dumps would make it a class that is called null
                raise ValueError(f"{field} is null")
            return json.dumps(value).encode()
        except Exception as error:
            raise MLScaleError(
                f"the label of sample {self.get_key(sample)} has no value at {field!r}",
                where=self._where,
                why=f"its {self._index.describe_column(self._label_column)} begins {content[:80]!r}",
                fix="data.label_field=<a key of every sample's JSON>",
            ) from error

    def _decode_sample_label(self, content: bytes, extension: str, contents: list[bytes], where: str) -> Label:
        try:
            return decode_label(content, extension)
        except Exception as error:
            raise MLScaleError(
                # The first sample that has it: looked for only here, since each label may be another.
                f"the label of sample {self._index.get_sample_name(contents.index(content))} cannot be read",
                where=where,
                why=f"{error} (its {self._index.describe_column(self._label_column)} begins {content[:40]!r})",
                fix="data.label_field=<the key of the label in it>"
                if extension == "json"
                else "a label is a whole number from 0, or the name of a class",
            ) from error

    def _build_missing_error(self, absent: NDArray[np.bool_], member: str, where: str) -> MLScaleError:
        first = int(np.argmax(absent))
        key, shard = self._index.keys[first], self._index.shard[first]
        # What `tar --append` and joined shards leave: a member that was meant to replace the one before.
        times = sum(other == key for other, at in zip(self._index.keys, self._index.shard, strict=True) if at == shard)
        return MLScaleError(
            f"{int(absent.sum())} of {len(self._index)} samples lack their {member} member",
            where=where,
            why=f"the first is {self._index.get_sample_name(first)}"
            + (f", a key that is in this shard {times} times" if times > 1 else ""),
            fix="data.incomplete=skip, which leaves them out"
            if not absent.all()
            else "write the shards so that a sample's image and label share a key: 000.jpg and 000.cls",
        )


def decode_label(content: bytes, extension: str) -> Label:
    """Return a whole number or a class name, from the bytes of a label member.

    A `.cls` or `.txt` member that is not a number is the name of a class.

    Raises:
        ValueError: it is neither.
    """
    if extension.rsplit(".", 1)[-1] in ("cls", "cls2", "txt", "text"):
        text = content.decode("utf-8").strip()
        if not text:
            raise ValueError("it is empty")
        try:
            return int(text)
        except ValueError:
            return text
    value: Any = decode_value(content, extension)
    # webdataset has no handler for this extension.
    if isinstance(value, bytes):
        value = value.decode("utf-8").strip()
    # numpy scalars and arrays of one value.
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"it is {type(value).__name__}, neither a whole number nor text")
    return value


def _format_extensions(extensions: Collection[str]) -> str:
    return ", ".join(f".{extension}" for extension in extensions)
