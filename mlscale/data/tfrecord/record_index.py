"""The index of TFRecord files: the offset of each record, and of each feature in it.

It is the index of shards: a feature is a member of its sample, so whatever reads tar shards reads records.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlscale.data.shards.index_builder import create_read_error
from mlscale.data.shards.index_files import SampleKeys, ShardIndex, compute_content_digest
from mlscale.data.shards.shard_index import CorruptMemberError, Index, return_content
from mlscale.data.shards.shard_paths import ReadSpan, Shard
from mlscale.data.tfrecord.record_framing import (
    FOOTER_BYTES,
    LostRecordsError,
    has_right_checksum,
    import_checksum,
    list_records,
)
from mlscale.data.tfrecord.wire_format import FileBytes, WireFormatError, find_features
from mlscale.errors import MLScaleError

RECORD = "record"
"""The column of whole records; those of features are `<type> <name>`, which no record's is."""
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78": "zlib"}

Convert = Callable[[bytes], bytes]
"""From the list of a feature, as the record has it, to the bytes of a member of a tar shard."""


def scan_records(shard: Shard, status: os.stat_result, where: str) -> ShardIndex:
    """Read the lengths and the names of features of one file; of their values nothing.

    Raises:
        MLScaleError: it is not a TFRecord file, is cut off, or a record is not a `tf.train.Example`.
    """
    # Before any file is opened, so that a missing package is the error.
    import_checksum()
    try:
        # A plain handle, since pread has no position that a buffered file would move.
        handle = os.open(shard.path, os.O_RDONLY)
        try:
            spans = list_records(handle, status.st_size)
            features = _find_all_features(FileBytes(handle), spans, shard, where)
        finally:
            os.close(handle)
        content = compute_content_digest(shard.path)
    except LostRecordsError as error:
        raise _build_corruption_error(shard, status.st_size, error, where) from error
    except OSError as error:
        raise create_read_error(shard, where, error) from error
    if not spans:
        raise MLScaleError(f"the shard {shard.path!r} is empty", where=where, fix="write it again, or leave it out")
    # Sorted, so that the index is the same whatever order the features have.
    columns = [RECORD, *sorted({name for by_name in features for name in by_name})]
    table = np.array(
        [
            [span, *(by_name.get(name, (-1, 0)) for name in columns[1:])]
            for span, by_name in zip(spans, features, strict=True)
        ],
        dtype=np.int64,
    )
    return ShardIndex(
        keys=SampleKeys.join_texts([f"{number:06d}" for number in range(len(spans))]),
        extensions=tuple(columns),
        offsets=np.ascontiguousarray(table[:, :, 0]),
        sizes=np.ascontiguousarray(table[:, :, 1]),
        content=content,
    )


def are_intact(index: ShardIndex, handle: int) -> bool:
    """Return True if all records of an open file have the checksums that they state."""
    column = index.extensions.index(RECORD)
    spans = zip(index.offsets[:, column].tolist(), index.sizes[:, column].tolist(), strict=True)
    return all(has_right_checksum(os.pread(handle, size + FOOTER_BYTES, start)) for start, size in spans)


def _find_all_features(
    source: FileBytes, spans: Sequence[tuple[int, int]], shard: Shard, where: str
) -> list[dict[str, tuple[int, int]]]:
    columns: list[dict[str, tuple[int, int]]] = []
    for number, (start, size) in enumerate(spans):
        try:
            features = find_features(source, start, size)
        except WireFormatError as error:
            raise MLScaleError(
                f"record {number} of the shard {shard.path!r} is not a tf.train.Example",
                where=where,
                why=str(error),
                fix="write each sample as a serialised tf.train.Example",
            ) from error
        # With its type: a feature may have different ones in different records.
        columns.append({f"{kind} {name}": span for name, (kind, span) in features.items()})
    return columns


def _build_corruption_error(shard: Shard, length: int, error: LostRecordsError, where: str) -> MLScaleError:
    path = shlex.quote(shard.path)
    with open(shard.path, "rb") as stream:
        head = stream.read(2)
    packed = next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)
    # A record may have a length whose bytes begin as gzip does: the checksum has failed before this is asked.
    if error.records == 0 and packed is not None:
        return MLScaleError(
            f"the shard {shard.path!r} is compressed",
            where=where,
            why="records are read at their offsets, which a compressed file does not have",
            fix=f"gunzip -c {path} > {path}.plain"
            if packed == "gzip"
            else "write it without compression: tf.io.TFRecordWriter(path)",
        )
    # Not a single record: it is another kind of file, and no command can cut it to what is whole.
    if error.records == 0:
        return MLScaleError(
            f"the shard {shard.path!r} is not a TFRecord file",
            where=where,
            why=str(error),
            fix="data=webdataset, for tar shards\ndata=imagefolder, for folders of images",
        )
    return MLScaleError(
        f"the shard {shard.path!r} is {'cut off' if 'ends within' in str(error) else 'corrupt'}",
        where=where,
        why=f"{error}; {error.records:,} records are before it",
        fix=f"restore the shard from where it came from; or truncate -s {error.offset} {path}   keeps these records",
    )


class UnfitListError(ValueError):
    """A list of values that is whole, but not of the form that its role needs; `fix` is what to type."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.fix = fix


@dataclass(frozen=True)
class RecordIndex(Index):
    """Samples of one or more TFRecord files.

    Args:
        records: offset and size of each sample's record, int64 (n, 2).
        converts: for each column, the bytes of its member from its list.
        checked: columns that are read with their whole record, whose checksum is compared.
    """

    records: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    converts: tuple[Convert, ...] = ()
    checked: frozenset[int] = frozenset()

    def select_samples(self, samples: NDArray[np.bool_]) -> RecordIndex:
        """Return the index of some of the samples."""
        # The base class knows nothing of records.
        selected = super().select_samples(samples)
        assert isinstance(selected, RecordIndex)
        return replace(selected, records=self.records[samples])

    def describe_part(self, extension: str) -> str:
        return f"feature {extension!r}"

    def describe_column(self, column: int) -> str:
        # By role: the first two columns are named after the members of a tar, which these files have not.
        return ("image", "label")[column] if column < 2 else f"feature {self.extensions[column]!r}"

    def is_intact(self, sample: int) -> bool:
        """Return True if the checksum of a sample's record fits its data."""
        with self._open_shard(int(self.shard[sample])) as read:
            return has_right_checksum(self._read_record(read, sample))

    def _get_small(self, samples: range, column: int) -> list[bytes] | None:
        # The checksum is that of a whole record, which has to be read.
        return None if column in self.checked else super()._get_small(samples, column)

    def _check_members(self, samples: range, column: int, contents: list[bytes]) -> list[bytes]:
        # What was read are lists of values, which are no members yet.
        return [
            self._read_from(partial(return_content, one), sample, column)
            for sample, one in zip(samples, contents, strict=True)
        ]

    def _read_members(self, read: ReadSpan, samples: range, column: int) -> list[bytes]:
        # What a file has are lists of values, which are no members yet.
        return [self._read_from(read, sample, column) for sample in samples]

    def _read_from(self, read: ReadSpan, sample: int, column: int) -> bytes:
        start, size = int(self.offsets[sample, column]), int(self.sizes[sample, column])
        # One read for the whole record, since its checksum covers all of it.
        if column in self.checked:
            framed, begin = self._read_record(read, sample), start - int(self.records[sample, 0])
            if not has_right_checksum(framed):
                raise self._build_corrupt_error(sample, column, "its record has another checksum than it states")
            content = framed[begin : begin + size]
        else:
            content = self._read_span(read, sample, start, size)
        try:
            # To what a tar's member would hold, so that callers need not know of features.
            return self.converts[column](content)
        except UnfitListError as error:
            raise self._build_corrupt_error(sample, column, str(error), "cannot be used", error.fix) from error
        except ValueError as error:
            raise self._build_corrupt_error(sample, column, str(error)) from error

    def _read_record(self, read: ReadSpan, sample: int) -> bytes:
        start, size = self.records[sample].tolist()
        return self._read_span(read, sample, start, size + FOOTER_BYTES)

    def _read_span(self, read: ReadSpan, sample: int, start: int, size: int) -> bytes:
        content = read(size, start)
        if len(content) != size:
            shard = self.shards[self.shard[sample]]
            raise MLScaleError(
                f"the shard {shard.path!r} has become shorter since it was indexed",
                where=shard.path,
                why=f"the record of sample {self.get_sample_name(sample)} should have {size} bytes, "
                f"and {len(content)} are left",
                fix="write the shard again, and let nothing change it while a run reads it",
            )
        return content

    def _build_corrupt_error(
        self,
        sample: int,
        column: int,
        why: str,
        what: str = "is corrupt",
        fix: str = "data.on_bad_sample=skip, which leaves it out; or restore the shard",
    ) -> CorruptMemberError:
        return CorruptMemberError(
            f"the {self.describe_column(column)} of sample {self.get_sample_name(sample)} {what}",
            where=self.shards[self.shard[sample]].path,
            why=why,
            fix=fix,
        )

    def _has_same_offsets(self, number: int, size: int) -> bool:
        try:
            handle = os.open(self.shards[number].path, os.O_RDONLY)
            try:
                spans = set(list_records(handle, size))
            finally:
                os.close(handle)
        except (OSError, LostRecordsError):
            # The caller reports a shard that was changed.
            return False
        return all((start, length) in spans for start, length in self.records[self.shard == number].tolist())
