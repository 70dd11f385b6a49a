"""The contents of a sample, as tar shards and TFRecord files store them.

Samples of a list, and copies of others, are left out.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.images.decoded_cache import DecodedSamples, describe_place
from mlscale.data.images.image_modules import ImageData
from mlscale.data.images.masks import MaskSource
from mlscale.data.order.bad_samples import BadRecord, BadSample
from mlscale.data.shards.sample_source import Label, read_encoded_image
from mlscale.data.tfrecord.feature_schema import USUAL_NAMES
from mlscale.data.tfrecord.record_framing import Value, build_record
from mlscale.data.writing.reencoding import Reencoding
from mlscale.errors import MLScaleError

FORMATS: Final[Mapping[str, str]] = {"tar": "webdataset", "tfrecord": "tfrecord"}
"""The formats of shards by name, which is the extension of the files, too: the option of `data` that reads them."""

_File = tuple[str, bytes]
"""The extension and the bytes of a file."""


class SampleContents:
    """The samples of a split as bytes.

    Args:
        container: one of `FORMATS`.
        data: the split.
        labels: 'one', 'several' or 'mask'.
        names: of the classes; None where they are numbers.
        reencoding: of the images; None leaves their bytes as they are.
        max_pixels: of a stored image that is re-encoded.
    """

    def __init__(
        self,
        container: str,
        data: DecodedSamples,
        labels: str,
        names: tuple[str, ...] | None,
        reencoding: Reencoding | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._container, self._data, self._labels, self._class_names = container, data, labels, names
        self._reencoding, self._max_pixels = reencoding, max_pixels

    def build_part(self, sample: int, key: str) -> bytes:
        """Return a sample as a part of a shard.

        Args:
            sample: its number.
            key: its name, where the format has one of its own.

        Raises:
            MLScaleError: it can't be read, or the format can't hold it.
        """
        return self._build_members(sample, key) if self._container == "tar" else self._build_record(sample)

    def join_parts(self, parts: Sequence[bytes]) -> bytes:
        """Return the content of a shard."""
        # Two blocks of zeros end a tar.
        return b"".join(parts) + bytes(2 * tarfile.BLOCKSIZE if self._container == "tar" else 0)

    def _build_members(self, sample: int, key: str) -> bytes:
        extension, image, mask = self._read_pictures(sample)
        members = {extension.rpartition(".")[2]: image, **self._write_label_member(sample, mask)}
        # Times and owners are left out, so that the same data has the same bytes.
        return b"".join(_write_member(f"{key}.{name}", content) for name, content in members.items())

    def _build_record(self, sample: int) -> bytes:
        extension, image, mask = self._read_pictures(sample)
        if not is_image_file(extension):
            # TensorFlow has no operator that reads a .npy file.
            raise MLScaleError(
                f"the sample {self._data.source.get_key(sample)} is a .{extension} array, and not an encoded image",
                where="format",
                why="a TFRecord file holds encoded images",
                fix="format=tar",
            )
        features: dict[str, Value | list[Value]] = {
            "image/encoded": image,
            "image/format": extension.rpartition(".")[2],
            "image/filename": PurePosixPath(self._data.source.get_key(sample)).as_posix(),
        }
        return build_record({**features, **self._list_label_features(sample, mask)})

    def _list_label_features(self, sample: int, mask: _File | None) -> Mapping[str, Value | list[Value]]:
        name = USUAL_NAMES[self._labels]["label"]
        if mask is not None:
            return {name: mask[1]}
        if self._labels == "one":
            return {name: self._get_label(sample)}
        return {name: list(self._list_labels(sample))}

    def _write_label_member(self, sample: int, mask: _File | None) -> Mapping[str, bytes]:
        if mask is not None:
            extension, content = mask
            return {f"mask.{extension.rpartition('.')[2]}": content}
        if self._labels == "one":
            return {"cls": str(self._get_label(sample)).encode()}
        return {"json": json.dumps(self._list_labels(sample), ensure_ascii=False).encode()}

    def _get_label(self, sample: int) -> Label:
        # A name where there is one: numbers are given anew by whoever reads the shards.
        number = int(self._data.labels[sample])
        return number if self._class_names is None else self._class_names[number]

    def _list_labels(self, sample: int) -> list[Label]:
        numbers: list[int] = np.flatnonzero(self._data.labels[sample]).tolist()
        return [number if self._class_names is None else self._class_names[number] for number in numbers]

    def _read_pictures(self, sample: int) -> tuple[str, bytes, _File | None]:
        """Return extension and bytes of a sample's image, and of its mask where it has one.

        Raises:
            BadSample: it can't be read; or it is re-encoded, and can't be.
        """
        source = self._data.source
        extension, content = read_encoded_image(source, sample)
        mask = self._read_mask(sample) if self._labels == "mask" else None
        if self._reencoding is None:
            return extension, content, mask
        if not is_image_file(extension):
            raise BadSample(
                sample,
                source.get_key(sample),
                "is an array, and is not encoded as an image",
                why=f"it is a .{extension}",
            )
        what = "cannot be re-encoded"
        try:
            image = self._reencoding.encode_image(content, self._max_pixels)
            if mask is not None:
                what = "has a mask that cannot be re-encoded"
                mask = "png", self._reencoding.encode_mask(mask[1], mask[0], image, self._max_pixels)
        # Decoders and encoders raise errors of their own.
        except Exception as error:
            where = describe_place(source, sample, len(content))
            raise BadSample(
                sample, source.get_key(sample), what, where=where, why=str(error) or type(error).__name__
            ) from error
        return image.extension, image.content, mask

    def _read_mask(self, sample: int) -> _File:
        # Whatever has masks was asked for them.
        assert isinstance(self._data.source, MaskSource)
        return self._data.source.read_label(sample)


def _write_member(name: str, content: bytes) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    padded = content + b"\0" * (-len(content) % tarfile.BLOCKSIZE)
    return header.tobuf(tarfile.USTAR_FORMAT) + padded


@dataclass(frozen=True)
class LeftOut:
    """The samples that are not written.

    Attributes:
        rows: their numbers by split, int64 (k,), sorted.
        copies: how many of them are copies.
    """

    rows: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    copies: int = 0

    @property
    def digest(self) -> str | None:
        """The digest of the rows; None where all samples are written."""
        if not any(len(rows) for rows in self.rows.values()):
            return None
        total = hashlib.sha256()
        for split, rows in self.rows.items():
            total.update(f"{split} {len(rows)} ".encode() + rows.astype("<i8").tobytes())
        return total.hexdigest()[:16]


def find_left_out(data: ImageData, records: Sequence[BadRecord], *, drop_copies: bool) -> LeftOut:
    """Return the samples that are not written.

    Args:
        data: the source.
        records: the samples of a list.
        drop_copies: leave out images whose bytes are those of another: of one split all but the first, and those of
            validation and test that a split before them has. All images are read for it.

    Raises:
        MLScaleError: a sample of the list is not of this data; an image can't be read.
    """
    listed = _find_listed(data, records)
    if not drop_copies:
        return LeftOut(listed)
    rows, copies = {}, 0
    # Over all splits, in the order train, val, test: a copy of a training image measures memory alone.
    known: set[bytes] = set()
    for split in data.list_splits():
        copied = []
        source = data.get_decoded_split(split).source
        for row in np.setdiff1d(np.arange(len(source)), listed[split]).tolist():
            digest = hashlib.blake2b(read_encoded_image(source, row)[1], digest_size=16).digest()
            if digest in known:
                copied.append(row)
            known.add(digest)
        copies += len(copied)
        rows[split] = np.union1d(listed[split], np.array(copied, np.int64))
    return LeftOut(rows, copies)


def _find_listed(data: ImageData, records: Sequence[BadRecord]) -> dict[str, NDArray[np.int64]]:
    """Return the numbers of the samples of a list, by split."""
    numbers: dict[str, NDArray[np.int64]] = {}
    unknown = {record.split: record for record in records if record.split not in data.list_splits()}
    for split in data.list_splits():
        wanted = {record.key: record for record in records if record.split == split}
        rows = np.arange(data.count_samples(split), dtype=np.int64)
        # Names are made only where some are asked for: of millions of samples they take a while.
        known = {key: row for row, key in enumerate(data.list_keys(split, rows))} if wanted else {}
        unknown |= {key: record for key, record in wanted.items() if key not in known}
        numbers[split] = np.array(sorted(known[key] for key in wanted if key in known), np.int64)
    if unknown:
        first = next(iter(unknown.values()))
        raise MLScaleError(
            f"{len(unknown):,} of {len(records):,} samples to leave out are not in this data",
            where="leave_out",
            why=f"the first: {first.split} {first.key}",
            fix="leave_out=<the list of this data>: mlscale data verify data=… bad=bad.jsonl",
        )
    return numbers
