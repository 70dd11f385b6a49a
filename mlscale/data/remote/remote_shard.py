"""A shard on another machine: read from its copy in the cache, or, for a few samples, by ranges.

A downloaded shard is compared with every digest that is known of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mlscale.data.remote.addresses import identify_shard
from mlscale.data.remote.shard_cache import ShardCache
from mlscale.data.remote.transfers import (
    Attempts,
    ChangedShardError,
    RemoteStat,
    RetryLimits,
    Store,
    TransferCounts,
    WrongBytesError,
)
from mlscale.data.shards.index_builder import ForeignShard
from mlscale.data.shards.shard_paths import ReadSpan
from mlscale.errors import Exit, MLScaleError
from mlscale.report.text import format_decimal_size

_RANGE_READS, _RANGE_SHARE = 64, 16
"""Reads by range from one shard, after which it is downloaded; earlier where they were a sixteenth of its bytes. So few
need no copy, such as those that look at 512 samples of all shards."""
_DOWNLOADS = 4
"""Of a shard whose bytes differ from their digest, before that is an error."""
_SPACE_WAIT_SECONDS, _SPACE_POLL_SECONDS = 600.0, 0.1


class DownloadCancelledError(MLScaleError):
    """A download that was ended, since nothing needs it any more."""


class RemoteAccess:
    """Cache, limits and counts that all remote shards of a data set share.

    Args:
        cache: of downloaded shards.
        policy: how patient transfers are.

    Attributes:
        counts: what was read, and what failed on the way.
        planned: names of cached files that training will need, and that are downloaded in their order.
        reads_ranges: shards are never downloaded, since the cache can't hold what the order needs at a time.
    """

    def __init__(self, cache: ShardCache, policy: RetryLimits | None = None) -> None:
        self.cache, self.policy = cache, policy or RetryLimits()
        self.counts = TransferCounts()
        self.planned: set[str] = set()
        self.reads_ranges = False
        self._range_reads: Counter[str] = Counter()
        self._range_bytes: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._downloads: dict[str, threading.Lock] = {}

    @contextmanager
    def claim_download(self, name: str) -> Iterator[None]:
        """Be the one thread of this process that downloads a shard; wait for another one that does."""
        # Woken at its end: what waits for other processes looks every few hundredths of a second.
        with self._lock:
            claim = self._downloads.setdefault(name, threading.Lock())
        with claim:
            yield

    def count_range_read(self, name: str, size: int) -> None:
        """Note that bytes of a shard were read by range."""
        with self._lock:
            self._range_reads[name] += 1
            self._range_bytes[name] += size

    def is_worth_copy(self, name: str, size: int) -> bool:
        """Return True if so much of a shard of `size` bytes was read by ranges that the rest is likely to be."""
        reads, read_bytes = self._range_reads[name], self._range_bytes[name]
        return reads >= _RANGE_READS or read_bytes * _RANGE_SHARE > size


@dataclass(frozen=True)
class RemoteShard(ForeignShard):
    """A shard on another machine; `path` is its address as messages show it.

    Args:
        address: with user, password and signature.
        stat: its size and state at the start.
        store: reads it.
        access: what it shares with the others.
        where: the key path of its split, for errors.
        check: compares copies with what is known of it.
    """

    address: str = field(default="", repr=False)
    stat: RemoteStat = field(default=RemoteStat(0, None), repr=False)
    store: Store = field(default=None, repr=False)  # type: ignore[assignment]
    access: RemoteAccess = field(default=None, repr=False)  # type: ignore[assignment]
    where: str = field(default="data", repr=False)
    check: ContentCheck = field(default=None, repr=False, compare=False)  # type: ignore[assignment]

    @property
    def copy_name(self) -> str:
        """The name of its copy in the cache: another one for each state of the shard."""
        state = f"{identify_shard(self.address)}|{self.stat.size}|{self.stat.etag}"
        return f"{hashlib.sha256(state.encode()).hexdigest()[:32]}-{os.path.basename(self.name)[-80:]}"

    @contextmanager
    def open_copy(self) -> Iterator[str]:
        """Yield the path of a whole copy on this machine, which is not removed meanwhile."""
        handle = self._open_whole()
        try:
            yield str(self.access.cache.folder / self.copy_name)
        finally:
            os.close(handle)

    @contextmanager
    def open_reader(self, *, whole: bool = False) -> Iterator[ReadSpan]:
        """Yield a function that reads bytes, given size and offset; `whole` where most of the shard will be read."""
        handle = self.access.cache.open_whole(self.copy_name)
        if handle is None and (whole or self._is_worth_copy()):
            handle = self.fetch()
        if handle is None:
            if not self.stat.has_ranges:
                raise self._build_space_error("its server gives whole files only")
            yield self._read_range
            return
        try:
            yield partial(os.pread, handle)
        finally:
            os.close(handle)

    def discard_copy(self) -> None:
        """Forget a copy whose bytes have turned out to be wrong."""
        self.access.counts.count_failure()
        self.access.cache.remove(self.copy_name)

    def fetch(self, is_cancelled: Callable[[], bool] = lambda: False) -> int | None:
        """Return a handle of the copy, which is downloaded first if need be; None where the cache has no space.

        Args:
            is_cancelled: looked at as bytes come: True ends the download, which may be continued later.

        Raises:
            DownloadCancelledError: it was.
            MLScaleError: it can't be read, or its bytes are not what they should be, however often it is tried.
        """
        name, cache = self.copy_name, self.access.cache
        while (handle := cache.open_whole(name)) is None:
            with self.access.claim_download(name), cache.open_part(name, self.stat.size) as part:
                if part is not None:
                    self._download_part(part, is_cancelled)
                    cache.commit_part(name, self.stat.size, part)
                    self.access.counts.count_shard(self.stat.size)
                elif not (cache.folder / name).exists():
                    return None
        return handle

    def _open_whole(self) -> int:
        waited_until = time.monotonic() + _SPACE_WAIT_SECONDS
        while (handle := self.fetch()) is None:
            # Others, in this process too, are indexing shards, and let them go in a moment.
            if self.stat.size > self.access.cache.limit or time.monotonic() > waited_until:
                raise self._build_space_error("everything in it is being read")
            time.sleep(_SPACE_POLL_SECONDS)
        return handle

    def _is_worth_copy(self) -> bool:
        access = self.access
        if not self.stat.has_ranges or self.copy_name in access.planned:
            return True
        return not access.reads_ranges and access.is_worth_copy(self.copy_name, self.stat.size)

    def _download_part(self, part: int, is_cancelled: Callable[[], bool]) -> None:
        """Complete the file, from where an earlier download ended; one that is wrong is downloaded again."""
        attempts, begun = self._start_attempts(), os.fstat(part).st_size
        # Without a mark of its state, what is there may be of another state of the shard.
        if begun > self.stat.size or self.stat.etag is None or not self.stat.has_ranges:
            begun = 0
            os.ftruncate(part, 0)
        for number in range(_DOWNLOADS):
            self._read_into(part, begun, attempts, is_cancelled)
            if not self.store.compares_state:
                self._expect_same_state(attempts)
            if self.check.is_right(part):
                return
            # Also for the next process, which would resume at the end of it.
            begun = 0
            os.ftruncate(part, 0)
            if number + 1 < _DOWNLOADS:
                attempts.record_failure(WrongBytesError("its bytes differ from their digest"))
        raise self._build_wrong_error()

    def _expect_same_state(self, attempts: Attempts) -> None:
        """Refuse a shard that was replaced before the last of its bytes was read.

        Raises:
            MLScaleError: it was.
        """
        stat = attempts.call(partial(self.store.read_stat, self.address))
        if (stat.size, stat.etag) != (self.stat.size, self.stat.etag):
            attempts.record_failure(
                ChangedShardError(
                    f"it had {self.stat.size:,} bytes and ETag {self.stat.etag}, and has {stat.size:,} and {stat.etag}"
                )
            )

    def _read_into(self, part: int, at: int, attempts: Attempts, is_cancelled: Callable[[], bool]) -> None:
        while at < self.stat.size:
            reached = at

            def write(offset: int, content: bytes) -> None:
                nonlocal reached
                if is_cancelled():
                    raise DownloadCancelledError("the download is not needed any more")
                # A short write would leave a hole; a full disk raises.
                written = 0
                while written < len(content):
                    written += os.pwrite(part, content[written:], offset + written)
                reached = offset + len(content)

            try:
                self.store.stream_span(self.address, at, self.stat.size, self.stat, write)
                return
            except MLScaleError:
                raise
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    at = self._resume_after(error, at, reached, attempts)
                # The disk, not the network: others fill it, too, so it may have less space than the limit.
                elif not self.access.cache.remove_oldest():
                    raise self._build_disk_error(error) from error
                else:
                    at = reached if self.stat.has_ranges else at
            except Exception as error:
                at = self._resume_after(error, at, reached, attempts)

    def _resume_after(self, error: Exception, at: int, reached: int, attempts: Attempts) -> int:
        # Without ranges the next attempt starts at the first byte, so nothing was gained.
        if reached > at and self.stat.has_ranges:
            attempts.record_progress()
        attempts.record_failure(error)
        return reached if self.stat.has_ranges else at

    def _read_range(self, size: int, offset: int) -> bytes:
        """Return bytes of the shard, as `os.pread` does."""
        parts: list[bytes] = []

        def read() -> bytes:
            parts.clear()
            self.store.stream_span(
                self.address, offset, offset + size, self.stat, lambda _, content: parts.append(content)
            )
            return b"".join(parts)

        self.access.count_range_read(self.copy_name, size)
        return self._start_attempts().call(read) if size else b""

    def _start_attempts(self) -> Attempts:
        return Attempts(self.address, self.access.policy, self.access.counts, self.where)

    def _build_wrong_error(self) -> MLScaleError:
        return MLScaleError(
            f"the shard {self.path!r} is not what its index or its digest states",
            where=self.where,
            why=f"its bytes differ after {_DOWNLOADS} downloads",
            fix="upload the shard again, and with it .mlscale-index and dataset.json; or data.index=cache "
            "data.verify=false, which reads it as it is",
            exit=Exit.ENVIRONMENT,
        )

    def _build_space_error(self, why: str) -> MLScaleError:
        cache = self.access.cache
        needed = -(-self.stat.size // 10**8) / 10
        return MLScaleError(
            f"the shard {self.path!r} finds no space in the cache",
            where="data.cache_gb",
            why=f"it has {format_decimal_size(self.stat.size)}, {str(cache.folder)!r} may have "
            f"{format_decimal_size(cache.limit)}, and {why}",
            fix=f"data.cache_gb={max(2 * needed, cache.limit * 2 // 10**8 / 10):g}, or data.cache_dir=<a larger disk>",
            exit=Exit.ENVIRONMENT,
        )

    def _build_disk_error(self, error: OSError) -> MLScaleError:
        return MLScaleError(
            f"the shard {self.path!r} cannot be written to {str(self.access.cache.folder)!r}",
            where="data.cache_dir",
            why=error.strerror or str(error),
            fix="data.cache_dir=<a larger disk>, or data.cache_gb=<less than is free>",
            exit=Exit.ENVIRONMENT,
        )


_CHUNK = 1 << 22

# Of buckets whose ETags turned out not to be digests: they are encrypted with a key of their own.
_opaque_buckets: set[str] = set()


class ContentCheck:
    """Digests that copies of a shard are compared with.

    Args:
        address: of the shard.
        stat: its size, and its MD5 where the server states one.
        sha256: of its content, where a `dataset.json` states it.
    """

    def __init__(self, address: str, stat: RemoteStat, sha256: str | None) -> None:
        self._bucket, self._stat, self._sha256 = "/".join(address.split("/")[:3]), stat, sha256
        self._md5_before: str | None = None
        self.has_right_members: Callable[[int], bool] = lambda handle: True
        """Compares the members of an open copy, once there is an index of the shard."""

    def is_right(self, handle: int) -> bool:
        """Return True if an open copy is what all digests state."""
        return (
            os.fstat(handle).st_size == self._stat.size
            and self.has_right_members(handle)
            and (self._sha256 is None or _compute_digest(handle, hashlib.sha256()) == self._sha256)
            and self._has_right_md5(handle)
        )

    def _has_right_md5(self, handle: int) -> bool:
        # A digest of `dataset.json` is as good, and certain.
        if self._stat.md5 is None or self._bucket in _opaque_buckets or self._sha256 is not None:
            return True
        computed = _compute_digest(handle, hashlib.md5(usedforsecurity=False))
        if computed == self._stat.md5:
            return True
        before, self._md5_before = self._md5_before, computed
        # The same bytes twice: they are right, and the ETag only looks like a digest.
        if not self._stat.is_md5_certain and computed == before:
            _opaque_buckets.add(self._bucket)
            return True
        return False


def _compute_digest(handle: int, digest: Any) -> str:
    at = 0
    while content := os.pread(handle, _CHUNK, at):
        digest.update(content)
        at += len(content)
    return str(digest.hexdigest())
