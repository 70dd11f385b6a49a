"""The offset index of shards: where each member of each sample lies, so that any sample is one read away.

Members that share what stands before the first dot of their names are a sample, as webdataset has it; here they need
not be neighbours. Nothing is mapped into memory: a file that is truncated while mapped kills the process, and a read
costs microseconds.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlscale.data.index_file import ShardIndex, beside, in_cache, load, sampled_content, save
from mlscale.data.sources import Shard
from mlscale.data.tar_scan import scan
from mlscale.errors import MLScaleError, raise_all

_VERSION = 1
"""Of the digest: part of every data version."""

KEEP = ("auto", "cache", "beside")
"""Where indexes are kept: beside the shards if they lie there already, else in the cache; always the one; always the
other."""


@dataclass(frozen=True)
class Index:
    """Samples of one or more shards.

    Args:
        shards: the shards, in order.
        keys: the sample's key within its shard, (n,).
        shard: which shard each sample lies in, int32 (n,).
        extensions: extensions of the members, lower case, sorted, (m,).
        offsets: byte offset of each member, int64 (n, m); -1 where a sample lacks it.
        sizes: bytes of each member, int64 (n, m).
        contents: digest of each shard's blocks, hexadecimal.
    """

    shards: tuple[Shard, ...]
    keys: tuple[str, ...]
    shard: NDArray[np.int32]
    extensions: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    contents: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def place(self, sample: int) -> str:
        """Shard and key of a sample, as errors and batches name it."""
        return f"{self.shards[self.shard[sample]].name}/{self.keys[sample]}"

    def read(self, sample: int, column: int) -> bytes:
        """The bytes of one member.

        Raises:
            MLScaleError: the shard is gone, or shorter than when it was indexed.
        """
        path = self.shards[self.shard[sample]].path
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise MLScaleError(f"The shard {path!r} cannot be opened.", why=error.strerror or str(error)) from error
        try:
            return self._read_from(handle, sample, column)
        finally:
            os.close(handle)

    def read_all(self, column: int) -> list[bytes]:
        """The bytes of one member of every sample, shard by shard. For small members, such as labels."""
        content: list[bytes] = []
        bounds = np.searchsorted(self.shard, np.arange(len(self.shards) + 1))
        for number, shard in enumerate(self.shards):
            handle = os.open(shard.path, os.O_RDONLY)
            try:
                content += [
                    self._read_from(handle, sample, column) for sample in range(bounds[number], bounds[number + 1])
                ]
            finally:
                os.close(handle)
        return content

    def digest(self) -> str:
        """The data version: names, keys, offsets and sizes, and the content of blocks spread over every shard.

        It depends neither on the folder nor on times nor on the machine.
        """
        total = hashlib.sha256(f"tar index {_VERSION}".encode())
        for part in (*(shard.name for shard in self.shards), *self.keys, *self.extensions):
            total.update(part.encode("utf-8", "surrogateescape") + b"\0")
        for array in (self.offsets, self.sizes):
            total.update(array.astype("<i8").tobytes())
        for content in self.contents:
            total.update(bytes.fromhex(content))
        return total.hexdigest()[:16]

    def _read_from(self, handle: int, sample: int, column: int) -> bytes:
        size = int(self.sizes[sample, column])
        content = os.pread(handle, size, int(self.offsets[sample, column]))
        if len(content) != size:
            shard = self.shards[self.shard[sample]]
            raise MLScaleError(
                f"The shard {shard.path!r} has become shorter since it was indexed.",
                why=f"sample {self.place(sample)} should have {size} bytes of {self.extensions[column]}, "
                f"and {len(content)} are left",
                fix="write the shard anew, and let nothing change it while a run reads it",
            )
        return content


def build_index(shards: Sequence[Shard], *, where: str, keep: str = "auto") -> Index:
    """Index all shards. What was indexed before is read, if the shard is still as it was; see `index_file.load`.

    Args:
        shards: in order.
        where: the key path of the split, for errors.
        keep: one of `KEEP`.

    Raises:
        MLScaleError: a shard is not a tar, is truncated, or holds no sample. All such shards at once.
    """
    problems: list[MLScaleError] = []
    parts: list[ShardIndex] = []
    unwritable: dict[str, str] = {}

    def one(shard: Shard) -> ShardIndex | MLScaleError:
        try:
            return _load_or_scan(shard, where, keep, unwritable)
        except MLScaleError as problem:
            return problem

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(one, shards):
            if isinstance(result, ShardIndex):
                parts.append(result)
            else:
                problems.append(result)
    raise_all(problems)
    for folder, why in unwritable.items():
        print(f"index     kept in the cache: {folder} cannot be written to ({why})", file=sys.stderr, flush=True)
    return _join(shards, parts)


def _join(shards: Sequence[Shard], parts: Sequence[ShardIndex]) -> Index:
    extensions = tuple(sorted({extension for part in parts for extension in part.extensions}))
    total = sum(len(part.keys) for part in parts)
    offsets = np.full((total, len(extensions)), -1, np.int64)
    sizes = np.zeros((total, len(extensions)), np.int64)
    start = 0
    for part in parts:
        columns = [extensions.index(extension) for extension in part.extensions]
        stop = start + len(part.keys)
        offsets[start:stop, columns] = part.offsets
        sizes[start:stop, columns] = part.sizes
        start = stop
    return Index(
        shards=tuple(shards),
        keys=tuple(key for part in parts for key in part.keys),
        shard=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.keys) for part in parts]),
        extensions=extensions,
        offsets=offsets,
        sizes=sizes,
        contents=tuple(part.content for part in parts),
    )


def _load_or_scan(shard: Shard, where: str, keep: str, unwritable: dict[str, str]) -> ShardIndex:
    status = os.stat(shard.path)
    near, far = beside(shard.path), in_cache(shard.path)
    if keep != "cache" and (index := load(near, shard.path, status)):
        return index
    cached = load(far, shard.path, status)
    index = cached or _scan(shard, status.st_size, where)
    if keep == "beside":
        try:
            save(near, shard.path, status, index)
            return index
        except OSError as error:
            unwritable[os.path.dirname(shard.path)] = error.strerror or str(error)
    if cached is None:
        with suppress(OSError):  # A cache that cannot be written costs time, not the run.
            save(far, shard.path, status, index)
    return index


def _scan(shard: Shard, length: int, where: str) -> ShardIndex:
    """Read the headers of one tar."""
    try:
        samples = scan(shard.path, length)
        content = sampled_content(shard.path)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _unreadable(shard, length, error, where) from error
    if not samples:
        raise MLScaleError(
            f"The shard {shard.path!r} holds no sample.",
            where=where,
            why="it has no member named key.extension",
            fix="members of a sample share a key: 000.jpg and 000.cls",
        )
    extensions = sorted({extension for sample in samples for extension in sample.members})
    table = np.array(
        [[sample.members.get(extension, (-1, 0)) for extension in extensions] for sample in samples], dtype=np.int64
    )
    return ShardIndex(
        keys=tuple(sample.key for sample in samples),
        extensions=tuple(extensions),
        offsets=np.ascontiguousarray(table[:, :, 0]),
        sizes=np.ascontiguousarray(table[:, :, 1]),
        content=content,
    )


def _unreadable(shard: Shard, length: int, error: Exception, where: str) -> MLScaleError:
    if length == 0:
        what, why = f"The shard {shard.path!r} is empty.", "the file has no bytes"
    elif isinstance(error, OSError) and not isinstance(error, tarfile.TarError):
        what, why = f"The shard {shard.path!r} cannot be read.", error.strerror or str(error)
    elif _starts_like_tar(shard.path):
        what, why = f"The shard {shard.path!r} is damaged.", str(error)
    else:
        what, why = f"The shard {shard.path!r} is not a tar file.", str(error)
    return MLScaleError(
        what, where=where, why=why, fix=f"tar tf {shlex.quote(shard.path)}   shows what tar makes of it"
    )


def _starts_like_tar(path: str) -> bool:
    with open(path, "rb") as stream:
        return stream.read(512)[257:262] == b"ustar"
