"""The offset index of shards: where each member of each sample lies, so that any sample is one read away.

Members are grouped into samples as webdataset does it: neighbours in the tar that share what stands before the first
dot. Nothing is mapped into memory: a file that is truncated while mapped kills the process, and a read costs
microseconds.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlscale.data.cache import cache_dir, write_file_aside
from mlscale.data.secure import base_plus_ext
from mlscale.data.sources import Shard
from mlscale.errors import MLScaleError, raise_all

_FORMAT = 1
_BLOCK = 4096
_BLOCKS = 16


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
    """

    shards: tuple[Shard, ...]
    keys: tuple[str, ...]
    shard: NDArray[np.int32]
    extensions: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

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
        total = hashlib.sha256(f"tar index {_FORMAT}".encode())
        for part in (*(shard.name for shard in self.shards), *self.keys, *self.extensions):
            total.update(part.encode("utf-8", "surrogateescape") + b"\0")
        for array in (self.offsets, self.sizes):
            total.update(array.astype("<i8").tobytes())
        for shard in self.shards:
            total.update(_sampled_content(shard.path))
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


def build_index(shards: Sequence[Shard], *, where: str) -> Index:
    """Index all shards; what was indexed before comes from the cache, unless the file's size or time has changed.

    Raises:
        MLScaleError: a shard is not a tar, is truncated, or holds no sample. All such shards at once.
    """
    problems: list[MLScaleError] = []
    parts: list[Index] = []

    def scan(shard: Shard) -> Index | MLScaleError:
        try:
            return _load_or_scan(shard, where)
        except MLScaleError as problem:
            return problem

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(scan, shards):
            if isinstance(result, Index):
                parts.append(result)
            else:
                problems.append(result)
    raise_all(problems)
    return _join(parts)


def _join(parts: Sequence[Index]) -> Index:
    extensions = tuple(sorted({extension for part in parts for extension in part.extensions}))
    total = sum(len(part) for part in parts)
    offsets = np.full((total, len(extensions)), -1, np.int64)
    sizes = np.zeros((total, len(extensions)), np.int64)
    start = 0
    for part in parts:
        columns = [extensions.index(extension) for extension in part.extensions]
        offsets[start : start + len(part), columns] = part.offsets
        sizes[start : start + len(part), columns] = part.sizes
        start += len(part)
    return Index(
        shards=tuple(shard for part in parts for shard in part.shards),
        keys=tuple(key for part in parts for key in part.keys),
        shard=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts]),
        extensions=extensions,
        offsets=offsets,
        sizes=sizes,
    )


def _load_or_scan(shard: Shard, where: str) -> Index:
    status = os.stat(shard.path)
    identity = f"{_FORMAT}|{os.path.realpath(shard.path)}|{status.st_size}|{status.st_mtime_ns}"
    cached = cache_dir() / "index" / f"{hashlib.sha256(os.fsencode(identity)).hexdigest()[:32]}.npz"
    if cached.is_file():
        return _load(cached, shard)
    index = _scan(shard, status.st_size, where)
    with suppress(OSError):  # A cache that cannot be written costs time, not the run.
        write_file_aside(cached, _dump(index))
    return index


def _dump(index: Index) -> bytes:
    stream = io.BytesIO()
    np.savez(
        stream,
        keys=np.frombuffer("\0".join(index.keys).encode("utf-8", "surrogateescape"), np.uint8),
        extensions=np.frombuffer("\0".join(index.extensions).encode("utf-8", "surrogateescape"), np.uint8),
        offsets=index.offsets,
        sizes=index.sizes,
    )
    return stream.getvalue()


def _load(path: Path, shard: Shard) -> Index:
    with np.load(path, allow_pickle=False) as saved:
        keys = saved["keys"].tobytes().decode("utf-8", "surrogateescape").split("\0")
        extensions = saved["extensions"].tobytes().decode("utf-8", "surrogateescape").split("\0")
        offsets, sizes = saved["offsets"], saved["sizes"]
    return Index((shard,), tuple(keys), np.zeros(len(keys), np.int32), tuple(extensions), offsets, sizes)


def _scan(shard: Shard, length: int, where: str) -> Index:
    """Read the headers of one tar."""
    samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
    try:
        with tarfile.open(shard.path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # keeps memory flat, as webdataset does
                if not member.isreg() or re.match(r"__[^/]*__($|/)", member.name):
                    continue
                key, extension = base_plus_ext(member.name)
                if key is None:
                    continue
                if member.issparse():
                    raise tarfile.ReadError(f"member {member.name!r} is sparse")
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"member {member.name!r} ends after the end of the file")
                if not samples or samples[-1][0] != key:
                    samples.append((key, {}))
                if extension.lower() in samples[-1][1]:
                    raise tarfile.ReadError(f"member {member.name!r} stands there twice")
                samples[-1][1][extension.lower()] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise _unreadable(shard, length, error, where) from error
    if not samples:
        raise MLScaleError(
            f"The shard {shard.path!r} holds no sample.",
            where=where,
            why="it has no member named key.extension",
            fix="members of a sample share a key: 000.jpg and 000.cls",
        )
    extensions = sorted({extension for _, members in samples for extension in members})
    table = np.array(
        [[members.get(extension, (-1, 0)) for extension in extensions] for _, members in samples], dtype=np.int64
    )
    return Index(
        shards=(shard,),
        keys=tuple(key for key, _ in samples),
        shard=np.zeros(len(samples), np.int32),
        extensions=tuple(extensions),
        offsets=np.ascontiguousarray(table[:, :, 0]),
        sizes=np.ascontiguousarray(table[:, :, 1]),
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


def _sampled_content(path: str) -> bytes:
    """The digest of a shard's blocks, evenly spread; the whole of a small shard."""
    total = hashlib.sha256()
    size = os.stat(path).st_size
    last = max(0, size - _BLOCK)
    starts = range(0, size, _BLOCK) if size <= _BLOCK * _BLOCKS else [last * i // (_BLOCKS - 1) for i in range(_BLOCKS)]
    with open(path, "rb") as stream:
        for start in starts:
            stream.seek(start)
            total.update(stream.read(_BLOCK))
    return total.digest()
