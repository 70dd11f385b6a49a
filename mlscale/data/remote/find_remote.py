"""Resolution of an address (a file, a brace pattern, a glob, a folder) to remote shards."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import braceexpand

from mlscale import contracts
from mlscale.data.cache_folder import get_cache_dir
from mlscale.data.remote.addresses import (
    BUCKETS,
    HTTP,
    SCHEMES,
    expect_public_host,
    get_file_name,
    get_scheme,
    identify_shard,
    join_address,
    mask_address,
)
from mlscale.data.remote.remote_index import IndexedShard, find_cached_stat, read_small_file
from mlscale.data.remote.remote_shard import ContentCheck, RemoteAccess
from mlscale.data.remote.shard_cache import ShardCache
from mlscale.data.remote.transfers import Attempts, RemoteStat, RetryLimits, Store, describe_error, may_pass
from mlscale.data.shards.system_files import report_once
from mlscale.errors import Exit, MLScaleError, raise_all

_THREADS = 16
"""Requests at a time: an answer takes tens of milliseconds, most of which is waiting."""
_MAX_DOCUMENT_BYTES = 256 << 20
_SHOWN = 3
_FEW_ATTEMPTS = 3
"""Before the cache is looked at."""


def open_access(cache_dir: str | None = None, cache_bytes: int | None = None) -> RemoteAccess:
    """Return what the remote shards of a data set share.

    Args:
        cache_dir: folder of downloaded shards; None for `shards` in the cache of data sets.
        cache_bytes: that they may have together; None for half of the free disk.
    """
    folder = get_cache_dir() / "shards" if cache_dir is None else Path(cache_dir).expanduser()
    return RemoteAccess(ShardCache(folder, cache_bytes))


def find_remote_shards(entry: str, where: str, names: re.Pattern[str], access: RemoteAccess) -> list[IndexedShard]:
    """Return the shards that an address names; those of a folder or a glob are sorted.

    Args:
        entry: an address, which may have braces; `*`, `?` and `[]` in object stores alone.
        where: the key path of the spec, for errors.
        names: of files that are shards.
        access: how they are read.

    Raises:
        MLScaleError: nothing is there, the scheme is unknown or its package is missing, or the server can't be reached.
    """
    store = open_store(entry, access.policy, where)
    is_http = get_scheme(entry) in HTTP
    if is_http:
        expect_public_host(entry, where)
    parts = _expand_braces(entry)
    stats: dict[str, RemoteStat | None] = {}
    digests: dict[str, str] = {}
    for part in parts:
        # In an address of the web '?' begins the query.
        if "*" in part or (not is_http and any(mark in part for mark in "?[")):
            stats |= _list_matches(store, part, access, where, names, entry)
        elif names.search(get_file_name(part)) or (is_http and "?" in part):
            stats[part] = None
        else:
            stats |= _list_folder(store, part, access, where, names, digests)
    unknown = [address for address, stat in stats.items() if stat is None]

    def ask(access: RemoteAccess) -> dict[str, RemoteStat | None]:
        known = {**stats, **_read_stats(store, unknown, access, where, entry)}
        if known and not digests:
            digests.update(_read_digests(store, join_address(next(iter(known)), ""), access, where))
        return known

    hasty = copy.copy(access)
    hasty.policy = replace(access.policy, attempts=min(access.policy.attempts, _FEW_ATTEMPTS))
    try:
        known = ask(hasty)
    except MLScaleError as error:
        if error.exit != Exit.ENVIRONMENT:
            raise
        known = {address: find_cached_stat(address, access) for address in stats}
        if None in known.values():
            if not may_pass(error.__cause__ or error):
                raise
            known = ask(access)  # without the server nothing can be read: it is waited for
        else:
            report_once(f"remote    {error.what}: the shards are read from the cache, as they were")
    return [
        IndexedShard(
            name=identify_shard(address),
            path=mask_address(address),
            address=address,
            stat=stat,
            store=store,
            access=access,
            where=where,
            check=ContentCheck(address, stat, digests.get(get_file_name(address))),
        )
        for address, stat in known.items()
        if stat is not None
    ]


def _expand_braces(entry: str) -> list[str]:
    try:
        return list(braceexpand.braceexpand(entry))
    # Unbalanced braces are part of a name.
    except ValueError:
        return [entry]


def _read_stats(
    store: Store, addresses: Sequence[str], access: RemoteAccess, where: str, entry: str
) -> dict[str, RemoteStat]:
    is_away = threading.Event()  # then no other shard is waited for

    def read_or_catch(address: str) -> RemoteStat | FileNotFoundError | MLScaleError | None:
        def read() -> RemoteStat | FileNotFoundError:
            try:
                return store.read_stat(address)
            except FileNotFoundError as error:
                return error

        try:
            return None if is_away.is_set() else Attempts(address, access.policy, access.counts, where).call(read)
        except MLScaleError as problem:
            is_away.set()
            return problem

    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(zip(addresses, pool.map(read_or_catch, addresses), strict=True))
    # One error for a server that does not answer, and not a thousand.
    raise_all([result for _, result in results if isinstance(result, MLScaleError)][:1])
    missing = [address for address, result in results if isinstance(result, FileNotFoundError)]
    if missing:
        shown = mask_address(entry)
        raise MLScaleError(
            f"missing: {len(missing)} of the {len(addresses)} shards of {shown!r}"
            if len(addresses) > 1
            else f"the shard {shown!r} does not exist",
            where=where,
            why=f"not there: {', '.join(map(mask_address, missing[:_SHOWN]))}{', …' * (len(missing) > _SHOWN)}",
            fix=f"{where}=<addresses that exist>",
        )
    return {address: result for address, result in results if isinstance(result, RemoteStat)}


def _list_matches(
    store: Store, pattern: str, access: RemoteAccess, where: str, names: re.Pattern[str], entry: str
) -> dict[str, RemoteStat]:
    listed = _list(store, pattern, access, where)
    if listed is None:
        raise MLScaleError(
            f"the address {mask_address(entry)!r} has a '*'",
            where=where,
            why="web servers list no files",
            fix=f"{where}='https://<host>/<path>-{{00000..00099}}.tar'",
        )
    shards = {address: stat for address, stat in sorted(listed.items()) if names.search(get_file_name(address))}
    if not shards:
        raise MLScaleError(
            f"no shard matches {mask_address(entry)!r}",
            where=where,
            why=f"files that match, and are not shards: {len(listed)}",
            fix=f"{where}=<a pattern of shards that exist>",
        )
    return shards


def _list_folder(
    store: Store, folder: str, access: RemoteAccess, where: str, names: re.Pattern[str], digests: dict[str, str]
) -> dict[str, RemoteStat | None]:
    """Return the shards of a folder: by the `dataset.json` above it, else by listing it."""
    folder = f"{folder.rstrip('/')}/"
    digests |= _read_digests(store, folder, access, where)
    if digests and get_scheme(folder) in HTTP:
        return {join_address(folder, name): None for name in sorted(digests)}
    listed = _list(store, folder, access, where)
    if listed is None:
        raise MLScaleError(
            f"the address {mask_address(folder)!r} is a folder",
            where=where,
            why="web servers list no files, and no dataset.json of mlscale prepare is above it",
            fix=f"{where}='{mask_address(folder)}train-{{00000..00099}}.tar'",
        )
    shards = {address: stat for address, stat in sorted(listed.items()) if names.search(get_file_name(address))}
    if not shards:
        raise MLScaleError(
            f"the folder {mask_address(folder)!r} holds no shard",
            where=where,
            why=f"files in it: {len(listed)}",
            fix=f"{where}=<a folder of shards>",
        )
    return dict(shards)


def _list(store: Store, pattern: str, access: RemoteAccess, where: str) -> dict[str, RemoteStat] | None:
    return Attempts(pattern, access.policy, access.counts, where).call(lambda: store.list_files(pattern))


def _read_digests(store: Store, folder: str, access: RemoteAccess, where: str) -> dict[str, str]:
    """Return the SHA-256 of each shard of a folder by its name, from the `dataset.json` above it; empty without one."""
    above, name = join_address(folder.rstrip("/"), "dataset.json"), get_file_name(folder.rstrip("/"))
    content = read_small_file(store, above, access, where, _MAX_DOCUMENT_BYTES)
    # Another program's file of this name has nothing of this. Two marks: a wrong byte leaves one of them.
    if content is None or (b"mlscale/dataset/" not in content and b'"class_counts"' not in content):
        return {}
    try:
        document: Any = json.loads(content)
        contracts.expect_format("dataset", document, mask_address(above))
        if not contracts.has_right_checksum(document):
            raise ValueError("its content is not that of its checksum")
        return {str(shard["name"]): str(shard["sha256"]) for shard in document.get("shards", {}).get(name, ())}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MLScaleError(
            f"{mask_address(above)!r} can't be read",
            where=where,
            why=f"{error}; it has the digests of the shards: upload it again",
            fix=f"mlscale prepare data=webdataset {where}=<the shards> to=<a folder>, which writes them, and it, again",
        ) from error


def open_store(address: str, policy: RetryLimits, where: str) -> Store:
    """Return the store of an address; one for each scheme in a process, since it holds open connections.

    Raises:
        MLScaleError: the scheme is unknown, or its package is not installed.
    """
    scheme = get_scheme(address) or ""
    kind = "http" if scheme in HTTP else BUCKETS.get(scheme, ("", ""))[0]
    if not kind:
        raise MLScaleError(
            f"addresses of '{scheme}://' are not read: {mask_address(address)!r}",
            where=where,
            why=f"the schemes are: {', '.join(f'{name}://' for name in SCHEMES)}",
            fix="copy the shards to a folder, or to one of these",
        )
    with _lock:
        if (kind, policy) not in _stores:
            _stores[kind, policy] = _create_store(kind, scheme, policy, where)
        return _stores[kind, policy]


def _create_store(kind: str, scheme: str, policy: RetryLimits, where: str) -> Store:
    # Imported on use: who has shards on a disk needs none of these packages.
    try:
        if kind == "http":
            from mlscale.data.remote.http_store import HttpStore

            return HttpStore(policy)
        from mlscale.data.remote.bucket_store import BucketStore

        return BucketStore(kind, policy)
    except ImportError as error:
        package = "fsspec and aiohttp" if kind == "http" else BUCKETS[scheme][1]
        raise MLScaleError(
            f"addresses of '{scheme}://' are read by {package}, which is not installed",
            where=where,
            why=str(error),
            fix=f"pip install 'mlscale[{'remote' if kind == 'http' else kind}]'",
            exit=Exit.ENVIRONMENT,
        ) from error
    # Whatever the packages raise: adlfs looks for an account when it is opened, and others for credentials.
    except Exception as error:
        raise MLScaleError(
            f"addresses of '{scheme}://' cannot be read",
            where=where,
            why=describe_error(error),
            fix="give the account and its credentials by the environment (docs/remote.md)",
            exit=Exit.ENVIRONMENT,
        ) from error


_lock = threading.Lock()
_stores: dict[tuple[str, RetryLimits], Store] = {}
