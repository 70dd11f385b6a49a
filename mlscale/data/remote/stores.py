"""The interface of servers of remote shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Sink = Callable[[int, bytes], None]
"""Takes bytes as they come, with their offset in the shard. It is called by another thread, so it must not wait."""


@dataclass(frozen=True)
class RemoteStat:
    """Size and state of a file, as its server states them.

    Args:
        size: bytes.
        etag: changes with the content: an ETag, else the time of the last change; None where the server has neither.
        md5: of the content, hexadecimal; None where it is not known.
        is_md5_certain: it is one; an ETag of S3 only looks like one where the bucket is encrypted.
        has_ranges: a part of the file can be read.
    """

    size: int
    etag: str | None
    md5: str | None = None
    is_md5_certain: bool = False
    has_ranges: bool = True


class Store(Protocol):
    """A kind of server. Every method may raise whatever the network does; none repeats anything."""

    compares_state: bool
    """Each transfer is compared with the state of the file; else callers have to, once they have read it."""

    def read_stat(self, address: str) -> RemoteStat:
        """Return size and state of a file."""

    def stream_span(self, address: str, start: int, stop: int, stat: RemoteStat, sink: Sink) -> None:
        """Give the bytes from `start` to before `stop` to `sink`, in order; of a server without ranges all bytes."""

    def list_files(self, pattern: str) -> dict[str, RemoteStat] | None:
        """Return the files that a glob matches or a folder holds, by address; None where nothing can be listed."""
