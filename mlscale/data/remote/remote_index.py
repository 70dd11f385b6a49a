"""The index of a remote shard: saved on this machine, next to the shard, or made from a copy of it.

Small files next to remote shards, such as indexes and `dataset.json`, need not be there.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mlscale.data.cache_folder import get_cache_dir
from mlscale.data.remote.addresses import get_file_name, identify_shard, join_address, mask_address
from mlscale.data.remote.remote_shard import RemoteAccess, RemoteShard
from mlscale.data.remote.transfers import Attempts, RemoteStat, StatusError, Store
from mlscale.data.shards.index_builder import Scanner, keep_small_members
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
        unread: list[UnreadableIndexError] = []
        saved = use_index(partial(load_index, self.get_index_path()), unread)
        if saved is not None and _is_of(saved, self, scanner) and saved.about.get("etag") == self.stat.etag:
            index = saved.index
        else:
            adjacent = None if keep == "cache" else _load_adjacent(self, where, scanner, unread)
            index = _scan_copy(self, where, scanner) if adjacent is None else adjacent
            settle_unread(unread, index, verify=scanner.verify)
            with suppress(OSError):  # A cache that cannot be written costs time, not the run.
                self.save_index(index, scanner.container)
        self.check.has_right_members = partial(_has_right_members, index, scanner)
        return index

    def get_index_path(self) -> Path:
        digest = hashlib.sha256(identify_shard(self.address).encode()).hexdigest()[:32]
        return get_cache_dir() / "index" / f"{digest}.npz"

    def save_index(self, index: ShardIndex, container: str) -> None:
        # A mode for every reader, and the size; the server's times are in the ETag.
        status = os.stat_result(
            (0o100644, 0, 0, 1, 0, 0, self.stat.size, 0, 0, 0), {"st_mtime_ns": 0, "st_ctime_ns": 0}
        )
        save_index(self.get_index_path(), get_file_name(self.address), status, index, container, self.stat.etag)


def find_cached_stat(address: str, access: RemoteAccess) -> RemoteStat | None:
    """Return the state of a shard of which the cache has a whole copy, compared when it came; None without one."""
    shard = IndexedShard(identify_shard(address), "", address=address, access=access)
    if (saved := use_index(partial(load_index, shard.get_index_path()), [])) is None:
        return None
    stat = RemoteStat(saved.about["size"], saved.about.get("etag"))
    return stat if (access.cache.folder / replace(shard, stat=stat).copy_name).is_file() else None


def _has_right_members(index: ShardIndex, scanner: Scanner, handle: int) -> bool:
    """Return True if an open copy is as the index has it: records, members, and what has no digest of its own."""
    if index.digests is not None:
        for sample, column in np.argwhere((index.offsets >= 0) & (index.sizes > 0)).tolist():
            content = os.pread(handle, int(index.sizes[sample, column]), int(index.offsets[sample, column]))
            if zlib.crc32(content) != int(index.digests[sample, column]):
                return False
    if scanner.is_intact is not None and not scanner.is_intact(index, handle):
        return False
    # Blocks spread over the shard, and labels that are taken from the index.
    if compute_spread_digest(partial(os.pread, handle), os.fstat(handle).st_size) != index.content:
        return False
    return index.small is None or read_small_members(handle, index.offsets, index.sizes) == index.small


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
    if saved.index.digests is None and scanner.is_intact is None and not _has_same_blocks(saved.index, shard):
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
        return keep_small_members(index, path)


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


def read_small_file(store: Store, address: str, access: RemoteAccess, where: str, most: int) -> bytes | None:
    """Return the content of a file that may be there; None if it is not, may not be read, or is larger than `most`."""
    attempts = Attempts(address, access.policy, access.counts, where)

    def read() -> bytes | None:
        parts: list[bytes] = []
        try:
            stat = store.read_stat(address)
            if 0 < stat.size <= most:
                store.stream_span(address, 0, stat.size, stat, lambda _, content: parts.append(content))
        # What may be missing may also be out of reach: who may read objects one by one may not list them.
        except (FileNotFoundError, PermissionError):
            return None
        except StatusError as error:
            if error.status < 500 and error.status != 429:
                return None
            raise
        return b"".join(parts) or None

    return attempts.call(read)
