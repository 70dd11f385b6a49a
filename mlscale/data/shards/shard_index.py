"""The offset index of shards: where each member of each sample is, so that any sample is one read away.

Members that share what is before the first dot of their names are a sample, as webdataset has it; here they need not be
neighbours (see `tar_scan`). Nothing is mapped into memory: a file that is truncated while mapped kills the process, and
a read costs microseconds.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import suggest_restore
from mlscale.data.shards.index_files import SEPARATOR, SampleKeys, compute_content_digest
from mlscale.data.shards.shard_paths import ReadSpan, Shard
from mlscale.data.shards.small_members import SmallMembers
from mlscale.data.shards.system_files import SkippedFiles, report_once
from mlscale.data.shards.tar_scan import scan_tar
from mlscale.errors import MLScaleError

_VERSION = 1
"""Of the digest: part of every data version."""

# Outside uint32, so that it is not a CRC-32.
NO_DIGEST = -1
_REMOTE_READS = 4
"""Reads of a remote member that differs from its digest, before it counts as corrupt."""

State = tuple[int, int, int, int]
"""Device, inode, size and time of the last change: they identify the file that was indexed."""


NO_STATE: State = (0, 0, 0, 0)
"""The state of a shard that is not a file: what is read of it is compared in another way."""


def get_file_state(status: os.stat_result) -> State:
    """Return the state of a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class CorruptMemberError(MLScaleError):
    """A member whose bytes are not those that `mlscale prepare` has seen."""


@dataclass(frozen=True)
class Index:
    """Samples of one or more shards.

    Args:
        shards: the shards, in order.
        keys: the sample's key within its shard, (n,).
        shard: which shard each sample is in, int32 (n,).
        extensions: extensions of the members, lower case, sorted, (m,).
        offsets: byte offset of each member, int64 (n, m); -1 where a sample lacks it.
        sizes: bytes of each member, int64 (n, m).
        contents: digest of each shard's blocks, hexadecimal.
        states: of each shard, when it was indexed.
        digests: CRC-32 of each member, int64 (n, m); `NO_DIGEST` where none is known. None: nothing is compared.
        skipped: other contents of the shards, by kind.
        small: contents of small members, such as labels: of remote shards and of files that have not changed since.
    """

    shards: tuple[Shard, ...]
    keys: Sequence[str]
    shard: NDArray[np.int32]
    extensions: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    contents: tuple[str, ...]
    states: list[State] = field(default_factory=list)
    digests: NDArray[np.int64] | None = None
    skipped: dict[str, SkippedFiles] = field(default_factory=dict)
    small: SmallMembers | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def get_sample_name(self, sample: int) -> str:
        """Return shard and key of a sample, as errors and batches name it."""
        return f"{self.shards[self.shard[sample]].name}/{self.keys[sample]}"

    def describe_part(self, extension: str) -> str:
        """Return what a part of samples is called in messages, also one that none has."""
        return f"'.{extension}' member"

    def describe_column(self, column: int) -> str:
        """Return what a column is called in messages."""
        return f".{self.extensions[column]} member"

    def read_member(self, sample: int, column: int) -> bytes:
        """Return the bytes of one member.

        Raises:
            CorruptMemberError: they are not those of its digest.
            MLScaleError: the shard is missing, or another one than was indexed.
        """
        shard = self.shards[self.shard[sample]]
        if not shard.is_remote:
            handle = self._open_file(int(self.shard[sample]))
            try:
                return self._read_from(partial(os.pread, handle), sample, column)
            finally:
                os.close(handle)
        # What came, or was kept, may be wrong while the shard is right.
        for _ in range(_REMOTE_READS - 1):
            try:
                with shard.open_reader() as read:
                    return self._read_from(read, sample, column)
            except CorruptMemberError:
                shard.discard_copy()
        with shard.open_reader() as read:
            return self._read_from(read, sample, column)

    def read_column(self, column: int) -> list[bytes]:
        """Return the bytes of one member of every sample, shard by shard. For small members, such as labels."""
        content: list[bytes] = []
        # `shard` is sorted, because samples are numbered shard by shard.
        bounds = np.searchsorted(self.shard, np.arange(len(self.shards) + 1))
        for number in range(len(self.shards)):
            samples = range(bounds[number], bounds[number + 1])
            held = self._get_small(samples, column)
            if held is not None and self.shards[number].is_remote:
                content += self._check_members(samples, column, held)
                continue
            # A file is opened even so: it may have been replaced since its index was loaded.
            with self._open_shard(number) as read:
                content += (
                    self._read_members(read, samples, column)
                    if held is None
                    else self._check_members(samples, column, held)
                )
        return content

    def _read_members(self, read: ReadSpan, samples: range, column: int) -> list[bytes]:
        # As lists: an element of an array is an object that is made for it.
        sizes = self.sizes[samples.start : samples.stop, column].tolist()
        offsets = self.offsets[samples.start : samples.stop, column].tolist()
        contents = [read(size, offset) for size, offset in zip(sizes, offsets, strict=True)]
        return self._check_members(samples, column, contents)

    def _check_members(self, samples: range, column: int, contents: list[bytes]) -> list[bytes]:
        """Return the bytes of members that were read, once they are known to be right."""
        sizes = self.sizes[samples.start : samples.stop, column]
        if np.array_equal(np.fromiter(map(len, contents), np.int64, len(contents)), sizes):
            if self.digests is None:
                return contents
            # Most are those of one of a few classes.
            checksums = {content: zlib.crc32(content) for content in dict.fromkeys(contents)}
            computed = np.fromiter(map(checksums.__getitem__, contents), np.int64, len(contents))
            stated = self.digests[samples.start : samples.stop, column]
            if ((stated == computed) | (stated == NO_DIGEST)).all():
                return contents
        # With the checks of each, and its error.
        return [
            self._read_from(partial(return_content, one), sample, column)
            for sample, one in zip(samples, contents, strict=True)
        ]

    def _get_small(self, samples: range, column: int) -> list[bytes] | None:
        """Return the bytes of small members that the index holds; None unless it holds all of them."""
        if self.small is None:
            return None
        starts = self.small.starts[samples.start : samples.stop, column]
        sizes = self.sizes[samples.start : samples.stop, column]
        if not ((starts >= 0) | (sizes == 0)).all():
            return None
        held = self.small.content
        return [held[start:stop] for start, stop in zip(starts.tolist(), (starts + sizes).tolist(), strict=True)]

    def compute_checksums(self, column: int) -> NDArray[np.uint32]:
        """Return the CRC-32 of one member of every sample, uint32 (n,); they are read unless digests were recorded."""
        if self.digests is not None and (self.digests[:, column] != NO_DIGEST).all():
            return self.digests[:, column].astype(np.uint32)
        read = (self.read_member(sample, column) for sample in range(len(self)))
        return np.fromiter((zlib.crc32(content) for content in read), np.uint32, len(self))

    def compute_data_version(self) -> str:
        """Return the data version: a digest of names, keys, offsets, sizes, and blocks spread over every shard.

        It depends neither on the folder nor on times nor on the machine.
        """
        total = hashlib.sha256(f"tar index {_VERSION}".encode())
        keys = self.keys if isinstance(self.keys, SampleKeys) else SampleKeys.join_texts(self.keys)
        names = [SampleKeys.join_texts(list(texts)) for texts in ([one.name for one in self.shards], self.extensions)]
        # Joined: a call for each of a million takes a second.
        total.update(SEPARATOR.join((names[0].joined, keys.joined, names[1].joined, b"")))
        for array in (self.offsets, self.sizes):
            # Little-endian, so that the version is the same on every machine.
            total.update(array.astype("<i8").tobytes())
        for content in self.contents:
            total.update(bytes.fromhex(content))
        return total.hexdigest()[:16]

    def select_samples(self, samples: NDArray[np.bool_]) -> Index:
        """Return the index of some of the samples."""
        return replace(
            self,
            keys=self.keys.select_samples(samples)
            if isinstance(self.keys, SampleKeys)
            else tuple(key for key, is_kept in zip(self.keys, samples.tolist(), strict=True) if is_kept),
            shard=self.shard[samples],
            offsets=self.offsets[samples],
            sizes=self.sizes[samples],
            digests=None if self.digests is None else self.digests[samples],
            small=None if self.small is None else self.small.select_samples(samples),
        )

    @contextmanager
    def _open_shard(self, number: int) -> Iterator[ReadSpan]:
        """Yield the function that reads a shard, which is still the one that was indexed."""
        if self.shards[number].is_remote:
            # Whether it changed is known by its ETag, in which the name of its copy differs.
            with self.shards[number].open_reader(whole=True) as read:
                yield read
            return
        handle = self._open_file(number)
        try:
            # pread has no file position, so threads may share a handle.
            yield partial(os.pread, handle)
        finally:
            os.close(handle)

    def _open_file(self, number: int) -> int:
        """Return a handle of a shard that is a file of this machine, and still the one that was indexed."""
        path = self.shards[number].path
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise MLScaleError(
                f"the shard {path!r} cannot be opened",
                where=path,
                why=error.strerror or str(error),
                fix=suggest_restore(path),
            ) from error
        try:
            # Of the open file and not of its path, which may be replaced in between.
            state = get_file_state(os.fstat(handle))
            if self.states and state != self.states[number]:
                self._expect_unchanged(number, state)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _expect_unchanged(self, number: int, state: State) -> None:
        """Accept a shard that was touched or replaced by a copy of itself.

        Raises:
            MLScaleError: it is another one now.
        """
        shard, before = self.shards[number], self.states[number]
        size = state[2]
        # Sampled blocks leave gaps, so the headers are compared below as well.
        same = size == before[2] and compute_content_digest(shard.path) == self.contents[number]
        if not same or not self._has_same_offsets(number, size):
            changed = f"it had {before[2]:,} bytes and has {size:,}" if size != before[2] else "its content is another"
            raise MLScaleError(
                f"the shard {shard.path!r} was changed or replaced after it was indexed",
                where=shard.path,
                why=f"{changed}; samples would be read from the wrong places",
                fix="start again, and let nothing change a shard while a run reads it",
            )
        report_once(f"data      {shard.path} was touched or replaced while read; its samples are where they were")
        # The next read compares with this state, and scans nothing.
        self.states[number] = state

    def _has_same_offsets(self, number: int, size: int) -> bool:
        """Return True if the present tar has the samples of the index at the same offsets."""
        try:
            scanned = scan_tar(self.shards[number].path, size).samples
        except (OSError, tarfile.TarError) as error:
            raise MLScaleError(
                f"the shard {self.shards[number].path!r} cannot be read",
                where=self.shards[number].path,
                why=str(error),
                fix="mlscale runs resume last, once it is restored: shards may not change while a run reads them",
            ) from error
        spans = {(sample.key, *member) for sample in scanned for member in sample.members.items()}
        for sample in np.flatnonzero(self.shard == number).tolist():
            for column in np.flatnonzero(self.offsets[sample] >= 0).tolist():
                span = (int(self.offsets[sample, column]), int(self.sizes[sample, column]))
                if (self.keys[sample], self.extensions[column], span) not in spans:
                    return False
        return True

    def _read_from(self, read: ReadSpan, sample: int, column: int) -> bytes:
        size = int(self.sizes[sample, column])
        content = read(size, int(self.offsets[sample, column]))
        # At the end of a truncated file pread returns less, without an error.
        if len(content) != size:
            shard = self.shards[self.shard[sample]]
            raise MLScaleError(
                f"the shard {shard.path!r} has become shorter since it was indexed",
                where=shard.path,
                why=f"sample {self.get_sample_name(sample)} should have {size} bytes of {self.extensions[column]}, "
                f"and {len(content)} are left",
                fix="write the shard again, and let nothing change it while a run reads it",
            )
        if self.digests is not None:
            self._check_digest(content, sample, column)
        return content

    def _check_digest(self, content: bytes, sample: int, column: int) -> None:
        """Compare bytes with their digest: 23 µs for 95 KB, 2 % of what it costs to decode them."""
        assert self.digests is not None
        stated = int(self.digests[sample, column])
        if stated != NO_DIGEST and zlib.crc32(content) != stated:
            raise CorruptMemberError(
                f"the {self.describe_column(column)} of sample {self.get_sample_name(sample)} is corrupt",
                where=self.shards[self.shard[sample]].path,
                why=f"the CRC-32 of its {len(content):,} bytes is {zlib.crc32(content):08x}, "
                f"and {stated:08x} was recorded by mlscale prepare",
                fix="restore the shard (mlscale prepare with the same data=… names all that is corrupt), "
                "or data.verify=false",
            )


def return_content(content: bytes, size: int, offset: int) -> bytes:
    """Return bytes that are in memory, as a read of a shard would."""
    return content
