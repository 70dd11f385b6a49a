"""Files on web servers: by ranges where the server has them, following redirects by hand."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from urllib.parse import quote, urljoin

import aiohttp
import yarl
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem

from mlscale.data.remote.addresses import HTTP, BlockedAddressError, get_scheme, is_blocked_host, open_guarded_socket
from mlscale.data.remote.transfers import ChangedShardError, RemoteStat, RetryLimits, Sink, StatusError, WrongBytesError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_CHUNK = 1 << 20
# Reserved characters and escapes stay as they were signed; spaces and the like become escapes.
_SAFE = "%/:=&?~#+!$,;'@()*[]"
_CONTENT_RANGE = re.compile(r"^bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")


class HttpStore:
    """Web servers, and presigned addresses of object stores.

    Args:
        policy: has the seconds after which a connection counts as stalled.
    """

    compares_state = True

    def __init__(self, policy: RetryLimits) -> None:
        # Total times depend on a shard's size, so only waits between bytes are limited.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=policy.stall_seconds, sock_read=policy.stall_seconds)

        async def open_session(**_: object) -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(socket_factory=open_guarded_socket)
            # Compressed transfers would have other offsets than the file.
            return aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                trust_env=True,
                auto_decompress=False,
                headers={"Accept-Encoding": "identity"},
            )

        self._files = HTTPFileSystem(skip_instance_cache=True, get_client=open_session)

    def read_stat(self, address: str) -> RemoteStat:
        stat: RemoteStat = sync(self._files.loop, self._read_stat, address)
        return stat

    def stream_span(self, address: str, start: int, stop: int, stat: RemoteStat, sink: Sink) -> None:
        sync(self._files.loop, self._stream_span, address, start, stop, stat, sink)

    def list_files(self, pattern: str) -> dict[str, RemoteStat] | None:
        # Web servers list nothing that can be relied on.
        return None

    async def _read_stat(self, address: str) -> RemoteStat:
        # One byte, and not HEAD: presigned addresses allow one method, and whether ranges work is known at once.
        async with self._get(address, {"Range": "bytes=0-0"}) as response:
            etag = _read_etag(response.headers)
            if response.status == 206:
                return RemoteStat(_parse_content_range(response.headers)[2], etag)
            if response.status == 416:  # an empty file has no first byte
                _expect_empty(response.headers)
                return RemoteStat(0, etag)
            if response.content_length is None:
                raise StatusError(response.status, "without the length of the file")
            return RemoteStat(response.content_length, etag, has_ranges=False)

    async def _stream_span(self, address: str, start: int, stop: int, stat: RemoteStat, sink: Sink) -> None:
        headers = {"Range": f"bytes={start}-{stop - 1}"} if stat.has_ranges else {}
        async with self._get(address, headers) as response:
            if response.status == 416:
                raise ChangedShardError(f"it has become shorter than {start:,} bytes")
            _expect_same_file(response, stat)
            if response.status == 206:
                first, last, _ = _parse_content_range(response.headers)
                if (first, last) != (start, stop - 1):
                    raise WrongBytesError(f"bytes {first} to {last} came in place of {start} to {stop - 1}")
                at = start
            elif stat.has_ranges and (start, stop) != (0, stat.size):
                raise WrongBytesError("the whole file came in place of a part of it")
            else:  # a server without ranges gives the whole file
                at, stop = 0, stat.size
            async for chunk in response.content.iter_chunked(_CHUNK):
                if at + len(chunk) > stop:
                    raise WrongBytesError(f"more than the {stop:,} bytes came that were stated")
                sink(at, chunk)
                at += len(chunk)
        if at != stop:
            raise WrongBytesError(f"the transfer ended at byte {at:,}, and {stop:,} were stated")

    @asynccontextmanager
    async def _get(self, address: str, headers: Mapping[str, str]) -> AsyncIterator[Any]:
        """Yield the response behind all redirects.

        Raises:
            BlockedAddressError: the address, or a redirect, leads to a metadata service.
            FileNotFoundError, PermissionError, StatusError: the server refuses.
        """
        session = await self._files.set_session()
        for _ in range(_MAX_REDIRECTS + 1):
            _expect_allowed(address)
            url = yarl.URL(quote(address, safe=_SAFE), encoded=True)
            async with session.get(url, headers=headers, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    if response.status not in (200, 206, 416):
                        _raise_status(response.status, response.reason or "")
                    _expect_stored_bytes(response)
                    yield response
                    return
                # By hand, so that each address on the way is looked at before it is contacted.
                following = urljoin(address, response.headers.get("Location", ""))
            if get_scheme(address) == "https" and get_scheme(following) != "https":
                raise StatusError(response.status, "leads from https to an address that is not encrypted")
            address = following
        raise StatusError(310, f"more than {_MAX_REDIRECTS} redirects")


def _expect_allowed(address: str) -> None:
    if get_scheme(address) not in HTTP:
        raise StatusError(302, "leads to an address that is neither http nor https")
    if is_blocked_host(yarl.URL(address).host or ""):
        raise BlockedAddressError(f"{BlockedAddressError.__name__}: a metadata service is not connected to")


def _expect_same_file(response: aiohttp.ClientResponse, stat: RemoteStat) -> None:
    etag = _read_etag(response.headers)
    size = _parse_content_range(response.headers)[2] if response.status == 206 else response.content_length
    if size is not None and size != stat.size:
        raise ChangedShardError(f"it had {stat.size:,} bytes and has {size:,}")
    if stat.etag is not None and etag is not None and etag != stat.etag:
        raise ChangedShardError(f"its mark was {stat.etag} and is {etag}")


def _expect_stored_bytes(response: aiohttp.ClientResponse) -> None:
    """Refuse a file that the server has compressed for the transfer, though it was sent a request not to."""
    # Offsets and lengths would be those of the compressed file.
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise StatusError(response.status, f"with Content-Encoding {coding}: shards are read as they are stored")


def _expect_empty(headers: Mapping[str, str]) -> None:
    """Refuse status 416 for a file that has bytes."""
    match = _CONTENT_RANGE.match(headers.get("Content-Range", ""))
    if match is not None and match[3] not in ("0", "*"):
        raise StatusError(416, f"for the first byte of a file of {int(match[3]):,}: the server gives no ranges")


def _read_etag(headers: Mapping[str, str]) -> str | None:
    # Without a mark the time of the last change is one, in seconds.
    return headers.get("ETag") or headers.get("Last-Modified")


def _parse_content_range(headers: Mapping[str, str]) -> tuple[int, int, int]:
    """Return first and last byte of a part, and the size of the whole."""
    stated = headers.get("Content-Range", "")
    match = _CONTENT_RANGE.match(stated)
    if match is None or match[1] is None:
        raise WrongBytesError(f"the server states the range {stated!r}")
    if match[3] == "*":  # which another attempt would not change
        raise StatusError(206, f"without the length of the file: {stated!r}")
    return int(match[1]), int(match[2]), int(match[3])


def _raise_status(status: int, reason: str) -> NoReturn:
    if status in (404, 410):
        raise FileNotFoundError(f"HTTP status {status} {reason}")
    if status in (401, 403, 407):
        raise PermissionError(f"HTTP status {status} {reason}")
    raise StatusError(status, reason)
