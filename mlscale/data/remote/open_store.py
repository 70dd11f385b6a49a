"""Open the store of an address: which package reads which scheme."""

from __future__ import annotations

import threading

from mlscale.data.remote.addresses import BUCKETS, HTTP, SCHEMES, get_scheme, mask_address
from mlscale.data.remote.stores import Store
from mlscale.data.remote.transfers import RetryLimits, describe_error
from mlscale.errors import Exit, MLScaleError


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
