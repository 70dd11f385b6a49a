"""Files in object stores, by fsspec's packages: s3fs, gcsfs, adlfs."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.asyn import sync

from mlscale.data.remote.addresses import open_guarded_socket
from mlscale.data.remote.transfers import RemoteStat, RetryLimits, Sink, WrongBytesError

_SPAN = 8 << 20
"""Bytes of one request: what a dropped connection costs at most, and few enough requests for a shard."""
_MD5 = re.compile(r"^[0-9a-f]{32}$")


class BucketStore:
    """An object store. Credentials and other settings come from the environment, as the packages document them.

    Args:
        kind: 's3', 'gs' or 'az'.
        policy: has the seconds after which a connection counts as stalled.
    """

    compares_state = False

    def __init__(self, kind: str, policy: RetryLimits) -> None:
        self._kind, self._stall = kind, policy.stall_seconds
        settings: dict[str, Any] = {}
        if kind == "s3":
            settings["config_kwargs"] = {
                "connect_timeout": policy.stall_seconds,
                "read_timeout": policy.stall_seconds,
                # Failures are repeated, and counted, by us alone.
                "retries": {"total_max_attempts": 1, "mode": "standard"},
                "connector_args": {"socket_factory": open_guarded_socket},
            }
        # Listings of a bucket may change between two runs of one process.
        self._files = fsspec.filesystem(kind, skip_instance_cache=True, use_listings_cache=False, **settings)
        if kind == "s3":
            self._files.retries = 1

    def read_stat(self, address: str) -> RemoteStat:
        return self._parse_stat(self._call(self._files._info, address))

    def stream_span(self, address: str, start: int, stop: int, stat: RemoteStat, sink: Sink) -> None:
        for at in range(start, stop, _SPAN):
            end = min(at + _SPAN, stop)
            content = self._call(self._files._cat_file, address, start=at, end=end)
            if len(content) != end - at:
                raise WrongBytesError(f"{len(content):,} bytes came in place of {end - at:,}")
            sink(at, content)

    def list_files(self, pattern: str) -> dict[str, RemoteStat] | None:
        scheme = pattern.partition("://")[0]
        if any(mark in pattern for mark in "*?[") and not self._call(self._files._exists, pattern):
            matches = self._call(self._files._glob, pattern, detail=True)
            entries = list(matches.values())
        else:
            entries = self._call(self._files._ls, pattern.rstrip("/"), detail=True)
        return {
            f"{scheme}://{entry['name']}": self._parse_stat(entry) for entry in entries if entry.get("type") == "file"
        }

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        # The packages limit the wait for a byte in different ways, or not at all: a request of 8 MiB that takes twice
        # as long is given up for any of them.
        return sync(self._files.loop, method, *arguments, timeout=2 * self._stall, **options)

    def _parse_stat(self, entry: Mapping[str, Any]) -> RemoteStat:
        etag = entry.get("ETag") or entry.get("etag")
        mark = str(etag).strip('"') if etag else None
        size = int(entry["size"])
        if self._kind == "gs" and (stated := entry.get("md5Hash")):
            return RemoteStat(size, mark, _decode_md5(str(stated)), is_md5_certain=True)
        # Of an object that was uploaded in parts the ETag ends in their number: it is not a digest of the bytes.
        if self._kind == "s3" and mark is not None and _MD5.match(mark):
            return RemoteStat(size, mark, mark)
        return RemoteStat(size, mark)


def _decode_md5(text: str) -> str | None:
    try:
        return base64.b64decode(text, validate=True).hex()
    except binascii.Error:
        return None
