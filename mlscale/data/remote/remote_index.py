"""The index of a remote shard: saved on this machine, next to the shard, or made from a copy of it."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mlscale.data.cache_folder import get_cache_dir
from mlscale.data.remote.addresses import get_file_name, identify_shard, join_address, mask_address
from mlscale.data.remote.remote_shard import RemoteAccess, RemoteShard
from mlscale.data.remote.small_files import read_small_file
from mlscale.data.remote.stores import RemoteStat
from mlscale.data.shards.index_builder import Scanner
from mlscale.data.shards.index_files import (
    INDEX_FOLDER_NAME,
    SavedIndex,
    ShardIndex,
    UnreadableIndexError,
    compute_spread_digest,
    load_index,
    parse_index,
    save_index,
    settle_unread,
    use_index,
)
from mlscale.data.shards.shard_paths import Shard
from mlscale.data.shards.small_members import read_small_members
from mlscale.errors import MLScaleError

_MAX_INDEX_BYTES = 1 << 30


class IndexedShard(RemoteShard):
    """A remote shard whose index is saved on this machine, next to it, or made from a copy."""

    def load_or_scan(self, where: str, keep: str, scanner: Scanner) -> ShardIndex:
        return load_or_scan_remote(self, where, keep, scanner)

    def get_index_path(self) -> Path:
        return get_remote_index_path(self)

    def save_index(self, index: ShardIndex, container: str) -> None:
        save_remote_index(self, index, container)


def load_or_scan_remote(shard: RemoteShard, where: str, keep: str, scanner: Scanner) -> ShardIndex:
    """Return the index of a remote shard, and save it in the cache.

    Args:
        shard: to be indexed.
        where: the key path of the split, for errors.
        keep: see `build_index`; 'cache' leaves out an index next to the shard.
        scanner: reads a copy, where no index fits.

    Raises:
        MLScaleError: the shard can't be read, is of another format, is corrupt, or holds no sample.
    """
    path = get_remote_index_path(shard)
    unread: list[UnreadableIndexError] = []
    saved = use_index(partial(load_index, path), unread)
    if saved is not None and _is_of(saved, shard, scanner) and saved.about.get("etag") == shard.stat.etag:
        index = saved.index
    else:
        adjacent = None if keep == "cache" else _load_adjacent(shard, where, scanner, unread)
        index = _scan_copy(shard, where, scanner) if adjacent is None else adjacent
        settle_unread(unread, index, verify=scanner.verify)
        with suppress(OSError):  # A cache that cannot be written costs time, not the run.
            save_remote_index(shard, index, scanner.container)
    shard.check.set_members(partial(find_wrong_members, index, scanner))
    return index


def get_remote_index_path(shard: RemoteShard) -> Path:
    """Return the path of a remote shard's index file on this machine."""
    digest = hashlib.sha256(identify_shard(shard.address).encode()).hexdigest()[:32]
    return get_cache_dir() / "index" / f"{digest}.npz"


def find_saved_state(address: str, access: RemoteAccess) -> RemoteStat | None:
    """Return the state of a shard of which the cache has a whole copy, compared when it came; None without one."""
    shard = IndexedShard(identify_shard(address), "", address=address, access=access)
    saved = use_index(partial(load_index, get_remote_index_path(shard)), [])
    if saved is None:
        return None
    stat = RemoteStat(saved.about["size"], saved.about.get("etag"))
    return stat if (access.cache.folder / replace(shard, stat=stat).copy_name).is_file() else None


def save_remote_index(shard: RemoteShard, index: ShardIndex, container: str) -> None:
    """Write the index file of a remote shard on this machine.

    Raises:
        OSError: the folder cannot be written to.
    """
    # A mode for every reader, and the size; the server's times are in the ETag.
    status = os.stat_result((0o100644, 0, 0, 1, 0, 0, shard.stat.size, 0, 0, 0), {"st_mtime_ns": 0, "st_ctime_ns": 0})
    save_index(get_remote_index_path(shard), get_file_name(shard.address), status, index, container, shard.stat.etag)


def find_wrong_members(index: ShardIndex, scanner: Scanner, handle: int) -> list[tuple[int, int]]:
    """Return the spans of an open copy that are not as the index has them: records, members, or all of it."""
    wrong = sorted(_iterate_wrong(index, handle))
    if scanner.find_wrong is not None:
        wrong += scanner.find_wrong(index, handle)
    if wrong:
        return wrong
    # Blocks spread over the shard, and labels that are taken from the index: what has no digest of its own is compared
    # there.
    size = os.fstat(handle).st_size
    is_right = compute_spread_digest(partial(os.pread, handle), size) == index.content
    if is_right and index.small is not None:
        is_right = read_small_members(handle, index.offsets, index.sizes) == index.small
    return [] if is_right else [(0, size)]


def _iterate_wrong(index: ShardIndex, handle: int) -> Iterator[tuple[int, int]]:
    if index.digests is None:
        return
    for sample, column in np.argwhere((index.offsets >= 0) & (index.sizes > 0)).tolist():
        start, size = int(index.offsets[sample, column]), int(index.sizes[sample, column])
        if zlib.crc32(os.pread(handle, size, start)) != int(index.digests[sample, column]):
            yield start, start + size


def _load_adjacent(
    shard: RemoteShard, where: str, scanner: Scanner, unread: list[UnreadableIndexError]
) -> ShardIndex | None:
    """Return the index that `data.index=beside` has left next to a shard; None unless it is of this state of it."""
    address = join_address(shard.address, f"{INDEX_FOLDER_NAME}/{get_file_name(shard.address)}.npz")
    shown = mask_address(address)
    content = read_small_file(shard.store, address, shard.access, where, _MAX_INDEX_BYTES)
    saved = None if content is None else use_index(partial(parse_index, content, shown), unread)
    if saved is None or not _is_of(saved, shard, scanner):
        return None
    # With digests each member is compared when it is read, and so is each record.
    if saved.index.digests is None and scanner.find_wrong is None and not _has_same_blocks(saved.index, shard):
        return None
    return saved.index


def _is_of(saved: SavedIndex, shard: RemoteShard, scanner: Scanner) -> bool:
    return saved.container == scanner.container and saved.about["size"] == shard.stat.size


def _has_same_blocks(index: ShardIndex, shard: RemoteShard) -> bool:
    if not shard.stat.has_ranges:
        return True  # compared when it is downloaded
    with shard.open_reader() as read:
        return compute_spread_digest(read, shard.stat.size) == index.content


def _scan_copy(shard: RemoteShard, where: str, scanner: Scanner) -> ShardIndex:
    with shard.open_copy() as path:
        copy = Shard(shard.name, path)
        try:
            index = scanner.scan(copy, os.stat(path), where)
        except MLScaleError as error:
            raise _name_address(error, path, shard) from error
        handle = os.open(path, os.O_RDONLY)
        try:
            return replace(index, small=read_small_members(handle, index.offsets, index.sizes))
        finally:
            os.close(handle)


def _name_address(error: MLScaleError, path: str, shard: RemoteShard) -> MLScaleError:
    """Return an error about a copy as one about its shard."""
    # Who reads the message knows the address, and not the cache.
    named = error.mask_texts(lambda text: text.replace(path, shard.path))
    # But commands for files can be typed for the copy alone.
    command = error.fix.rpartition("; or ")[2]
    if path in command:
        named.fix = (
            f"{command}, of its copy; or upload the shard again" if shard.stat.size else "upload the shard again"
        )
    return named
