"""Index files on disk: next to the shards, where they serve every user and machine, or in this user's cache.

An index file is a .npz: a JSON document by the contract `index` (`about`), the keys joined by NUL bytes (`keys`),
`offsets` and `sizes`, int64 (samples, extensions), and, once `mlscale prepare` has read the members, their `digests`.
One of another state of the shard is not used. One that can't be read is made again, unless digests may be lost with it.

The keys are one block of bytes: loading a million is a copy, and only a key that is used becomes a text.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mlscale import contracts
from mlscale.array_files import load_arrays
from mlscale.data.cache_folder import get_cache_dir, write_file_aside
from mlscale.data.shards.system_files import SkippedFiles, report_once
from mlscale.errors import MLScaleError

TAR = "tar"
"""The format of shards whose index does not state it."""

INDEX_FOLDER_NAME = ".mlscale-index"
"""The folder of index files in a folder of shards."""

# 64 KiB of a shard in 16 reads, whatever its size: the first block, the last, and 14 between them.
_BLOCK = 4096
_BLOCKS = 16
_CLOCK_TOLERANCE_NS = 2_000_000_000
"""A file that was changed so shortly before it was indexed may be changed again without its times showing it."""


@dataclass(frozen=True)
class ShardIndex:
    """The samples and members of one shard.

    Args:
        keys: each sample's key, (n,).
        extensions: extensions of the members, lower case, sorted, (m,).
        offsets: byte offset of each member, int64 (n, m); -1 where a sample lacks it.
        sizes: bytes of each member, int64 (n, m).
        content: digest of blocks of the shard, see `compute_content_digest`.
        digests: CRC-32 of each member, uint32 (n, m), 0 where a sample lacks it; None where they were not computed.
        skipped: other contents of the shard, by kind.
        small: contents of small members, see `read_small_members`; None where they were not kept.
    """

    keys: SampleKeys
    extensions: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    content: str
    digests: NDArray[np.uint32] | None = None
    skipped: dict[str, SkippedFiles] = field(default_factory=dict)
    small: bytes | None = None

    def has_same_members(self, other: ShardIndex) -> bool:
        """Return True if both have the same members at the same offsets."""
        return (
            (self.keys, self.extensions) == (other.keys, other.extensions)
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.sizes, other.sizes)
        )


@dataclass(frozen=True)
class SavedIndex:
    """An index as a file holds it.

    Args:
        index: what the shard held.
        about: which state of it that was.
    """

    index: ShardIndex
    about: dict[str, Any]

    @property
    def container(self) -> str:
        """The format of the shard: 'tar' or 'tfrecord'."""
        return str(self.about.get("container", TAR))

    def is_of_same_file(self, status: os.stat_result) -> bool:
        """Return True if size, inode and times of the shard are those of the file that was indexed."""
        about = self.about
        before = (about["size"], about.get("inode"), about["mtime_ns"], about.get("ctime_ns"))
        return before == (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def get_adjacent_index_path(shard: str) -> Path:
    """Return the path of the index file next to a shard."""
    return Path(shard).parent / INDEX_FOLDER_NAME / f"{Path(shard).name}.npz"


def get_cached_index_path(shard: str) -> Path:
    """Return the path of a shard's index file in the cache."""
    # The real path, so that a shard and a symbolic link to it have one index.
    digest = hashlib.sha256(os.fsencode(os.path.realpath(shard))).hexdigest()[:32]
    return get_cache_dir() / "index" / f"{digest}.npz"


def save_index(
    path: Path, shard: str, status: os.stat_result, index: ShardIndex, container: str = TAR, etag: str | None = None
) -> None:
    """Write an index file: all of it or nothing, readable for whoever may read the shard.

    Args:
        path: where to.
        shard: the shard's path.
        status: of the shard, taken before it was read.
        index: what it holds.
        container: the format of the shard.
        etag: of a remote shard, whose copy was indexed.

    Raises:
        OSError: the folder cannot be written to.
    """
    about: dict[str, Any] = {
        "format": contracts.get_format_tag("index"),
        "shard": os.path.basename(shard),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "content": index.content,
        "samples": len(index.keys),
        "extensions": list(index.extensions),
        "digest": "crc32" if index.digests is not None else None,
        "skipped": {kind: list(skipped) for kind, skipped in index.skipped.items()},
    }
    if container != TAR:
        about["container"] = container
    if etag is not None:
        about["etag"] = etag
    # Without inode and ctime the next run reads the headers again.
    if is_settled(status):
        about |= {"inode": status.st_ino, "ctime_ns": status.st_ctime_ns}
    arrays: dict[str, Any] = {
        "keys": np.frombuffer(index.keys.joined, np.uint8), "offsets": index.offsets, "sizes": index.sizes
    }  # fmt: skip
    if index.digests is not None:
        arrays["digests"] = index.digests
    if index.small is not None:
        arrays["small"] = np.frombuffer(index.small, np.uint8)
    about["arrays"] = _compute_digests(arrays)
    about["sha256"] = contracts.compute_checksum(about)
    # In memory first: only a complete file is written to the folder.
    stream = io.BytesIO()
    np.savez(stream, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
    # Whoever may read the shard may read its index; it is never executable.
    write_file_aside(path, stream.getvalue(), mode=status.st_mode & 0o666)


def is_settled(status: os.stat_result) -> bool:
    """Return True if a later change of a shard is sure to show in its times."""
    return time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _CLOCK_TOLERANCE_NS


class UnreadableIndexError(MLScaleError):
    """An index file that is corrupt, of a later format, or may not be read.

    Args:
        path: of the file, or its address.
        why: what is wrong with it.
        content: as far as it was read.
    """

    def __init__(self, path: str, why: str, content: bytes = b"") -> None:
        self.had_digests = b'"digest": null' not in content
        super().__init__(
            f"the index {path!r} can't be read",
            where=path,
            why=f"{why}; without it nothing is compared with the digests in it; a copy of the file restores them",
            fix=f"rm {shlex.quote(path)}, and then mlscale prepare records digests of shards that are known good\n"
            "data.verify=false, which compares nothing",
        )


def load_index(path: Path) -> SavedIndex | None:
    """Return the index that a file holds; None if the file does not exist.

    Raises:
        UnreadableIndexError: it can't be read.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UnreadableIndexError(str(path), error.strerror or str(error)) from error
    return parse_index(content, str(path))


def parse_index(content: bytes, path: str) -> SavedIndex:
    """Return the index that the bytes of a file hold.

    Raises:
        UnreadableIndexError: they are corrupt, or of a later format.
    """
    try:
        arrays = load_arrays(content)
        about = json.loads(arrays.pop("about").tobytes())
        contracts.expect_format("index", about, path)
        index = ShardIndex(
            keys=SampleKeys(arrays["keys"].tobytes(), about["samples"]),
            extensions=tuple(about["extensions"]),
            offsets=arrays["offsets"],
            sizes=arrays["sizes"],
            content=about["content"],
            digests=arrays["digests"] if about.get("digest") == "crc32" else None,
            small=arrays["small"].tobytes() if "small" in arrays else None,
            skipped={
                kind: SkippedFiles(int(count), str(first)) for kind, (count, first) in _read_skipped(about).items()
            },
        )
        is_whole = about.get("arrays") in (None, _compute_digests(arrays)) and contracts.has_right_checksum(about)
        is_whole = is_whole and _is_whole(index, about)
    except MLScaleError as error:
        raise UnreadableIndexError(path, error.what, content) from error
    except Exception:  # whatever wrong bytes give: of the archive, of JSON, of types
        is_whole = False
    if not is_whole:
        raise UnreadableIndexError(path, "it is corrupt: its content is not that of its checksum", content)
    return SavedIndex(index, about)


def use_index(load: Callable[[], SavedIndex | None], unread: list[UnreadableIndexError]) -> SavedIndex | None:
    """Return the index that a function loads; None without one, and where it can't be read, which is noted."""
    try:
        return load()
    except UnreadableIndexError as error:
        unread.append(error)
        return None


def settle_unread(unread: list[UnreadableIndexError], index: ShardIndex, *, verify: bool) -> None:
    """Report index files in place of which `index` is used.

    Raises:
        UnreadableIndexError: digests may have been recorded in one, and `index` has none, though they are to be used.
    """
    for error in unread:
        if error.had_digests and index.digests is None and verify:
            raise error
        report_once(f"index     {error.where} can't be read, and is not used: {error.why.partition(';')[0]}")


def _compute_digests(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


def _read_skipped(about: dict[str, Any]) -> dict[str, Any]:
    return dict(about.get("skipped") or {})


def _is_whole(index: ShardIndex, about: dict[str, Any]) -> bool:
    # numpy does not know what the arrays mean: a wrong offset would read bytes of another sample.
    shape = (about["samples"], len(index.extensions))
    digests = index.digests
    return (
        len(index.keys) == about["samples"] > 0
        and index.offsets.shape == index.sizes.shape == shape
        and index.offsets.dtype == index.sizes.dtype == np.int64
        and (digests is None or (digests.shape == shape and digests.dtype == np.uint32))
        and isinstance(about["mtime_ns"], int)
        and len(bytes.fromhex(index.content)) == 32
        and bool((index.sizes >= 0).all() and (index.offsets >= -1).all())
        and int((index.offsets + index.sizes).max()) <= about["size"]
    )


def compute_content_digest(path: str) -> str:
    """Return the SHA-256, hexadecimal, of a shard's blocks, evenly spread; of all of a small shard."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return compute_spread_digest(partial(os.pread, handle), os.fstat(handle).st_size)
    finally:
        os.close(handle)


def compute_spread_digest(read: Callable[[int, int], bytes], size: int) -> str:
    """Return the same of a shard of `size` bytes, which a function reads, given number and offset."""
    total = hashlib.sha256()
    # The last block begins where it ends with the file, so that a cut or a longer shard is noticed.
    last = max(0, size - _BLOCK)
    starts = range(0, size, _BLOCK) if size <= _BLOCK * _BLOCKS else [last * i // (_BLOCKS - 1) for i in range(_BLOCKS)]
    for start in starts:
        total.update(read(min(_BLOCK, size - start), start))
    return total.hexdigest()


# A name in a tar ends at its first NUL, so no key holds one.
SEPARATOR = b"\0"


class SampleKeys(Sequence[str]):
    """Keys of samples, in order. Equal to any sequence of the same texts.

    Args:
        joined: the keys, UTF-8 with whatever other bytes they have, with a NUL between them.
        count: how many they are, which nothing in `joined` shows where it is empty.

    Raises:
        ValueError: `joined` holds another number of keys.
    """

    def __init__(self, joined: bytes, count: int) -> None:
        if joined.count(SEPARATOR) != max(0, count - 1) or (joined and not count):
            raise ValueError(f"{joined.count(SEPARATOR) + 1} keys in place of {count}")
        self.joined, self._count = joined, count
        self._bounds: NDArray[np.int64] | None = None

    @classmethod
    def join_texts(cls, keys: Sequence[str]) -> SampleKeys:
        """Return these keys."""
        # Names in a tar are bytes, and need not be UTF-8.
        return cls("\0".join(keys).encode("utf-8", "surrogateescape"), len(keys))

    @classmethod
    def join_parts(cls, parts: Iterable[SampleKeys]) -> SampleKeys:
        """Return the keys of all parts, one part after the other."""
        filled = [part for part in parts if len(part)]
        return cls(SEPARATOR.join(part.joined for part in filled), sum(map(len, filled)))

    def select_samples(self, samples: NDArray[np.bool_]) -> SampleKeys:
        """Return the keys of some of the samples."""
        bounds = self._find_bounds()
        spans = np.stack([bounds[:-1], bounds[1:] - 1], axis=1)[samples].tolist()
        return SampleKeys(SEPARATOR.join(self.joined[start:stop] for start, stop in spans), len(spans))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(self._count)))
        # As an element of a range: negative numbers count from the end, and others raise IndexError.
        number = range(self._count)[index]
        bounds = self._find_bounds()
        return self.joined[bounds[number] : bounds[number + 1] - 1].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return iter(self.joined.decode("utf-8", "surrogateescape").split("\0") if self._count else ())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SampleKeys):
            return (self._count, self.joined) == (other._count, other.joined)
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((self._count, self.joined))

    def _find_bounds(self) -> NDArray[np.int64]:
        """Return where each key begins, and one past the end of the last one's separator, int64 (n + 1,)."""
        # On use, because a run that names no sample needs none; two threads that come at once find the same.
        if self._bounds is None:
            ends = np.flatnonzero(np.frombuffer(self.joined, np.uint8) == 0)
            self._bounds = np.concatenate([[0], ends + 1, [len(self.joined) + 1]]) if self._count else np.zeros(1, int)
        return self._bounds
