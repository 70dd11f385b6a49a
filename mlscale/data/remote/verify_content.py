"""Compare a downloaded shard with every digest that is known of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

from mlscale.data.remote.stores import RemoteStat

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
