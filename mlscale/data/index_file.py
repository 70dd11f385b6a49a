"""Indexes on disk: beside the shards, where they serve every user and machine, or in this user's cache.

An index file is a .npz: a JSON document as the contract `index` says (`about`), the keys joined by NUL bytes (`keys`),
and `offsets` and `sizes`, int64 (samples, extensions). One that is damaged, of another format, or of another state of
the shard is none.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale import contracts
from mlscale.data.cache import cache_dir, write_file_aside

BESIDE = ".mlscale-index"
"""The folder of index files in a folder of shards."""

_BLOCK = 4096
_BLOCKS = 16


@dataclass(frozen=True)
class ShardIndex:
    """What one shard holds.

    Args:
        keys: each sample's key, (n,).
        extensions: extensions of the members, lower case, sorted, (m,).
        offsets: byte offset of each member, int64 (n, m); -1 where a sample lacks it.
        sizes: bytes of each member, int64 (n, m).
        content: digest of blocks of the shard, see `sampled_content`.
    """

    keys: tuple[str, ...]
    extensions: tuple[str, ...]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    content: str


def beside(shard: str) -> Path:
    """The index file that lies with a shard."""
    return Path(shard).parent / BESIDE / f"{Path(shard).name}.npz"


def in_cache(shard: str) -> Path:
    """The index file of a shard in the cache."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(shard))).hexdigest()[:32]
    return cache_dir() / "index" / f"{digest}.npz"


def save(path: Path, shard: str, status: os.stat_result, index: ShardIndex) -> None:
    """Write an index file: all of it or nothing, readable for whoever may read the shard.

    Args:
        path: where to.
        shard: the shard's path.
        status: of the shard, taken before it was read.
        index: what it holds.

    Raises:
        OSError: the folder cannot be written to.
    """
    about = {
        "format": contracts.stamp("index"),
        "shard": os.path.basename(shard),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "content": index.content,
        "samples": len(index.keys),
        "extensions": list(index.extensions),
    }
    stream = io.BytesIO()
    np.savez(
        stream,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        keys=np.frombuffer("\0".join(index.keys).encode("utf-8", "surrogateescape"), np.uint8),
        offsets=index.offsets,
        sizes=index.sizes,
    )
    write_file_aside(path, stream.getvalue(), mode=status.st_mode & 0o666)


def load(path: Path, shard: str, status: os.stat_result) -> ShardIndex | None:
    """The index that a file holds, if it is whole and of this shard as it is now.

    A shard is as it was if its size is the same and so is either the time of its last change or, because copies have
    other times, the digest of its blocks.
    """
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as saved:
            about = json.loads(saved["about"].tobytes())
            contracts.expect("index", about, str(path))
            index = ShardIndex(
                keys=tuple(saved["keys"].tobytes().decode("utf-8", "surrogateescape").split("\0")),
                extensions=tuple(about["extensions"]),
                offsets=saved["offsets"],
                sizes=saved["sizes"],
                content=about["content"],
            )
        fits = _fits(index, about, status)
    except Exception:  # Whatever a damaged archive raises: zipfile, zlib, json, numpy and the contract all have theirs.
        return None
    if not fits or not (about["mtime_ns"] == status.st_mtime_ns or about["content"] == sampled_content(shard)):
        return None
    return index


def _fits(index: ShardIndex, about: dict[str, Any], status: os.stat_result) -> bool:
    shape = (about["samples"], len(index.extensions))
    return (
        about["size"] == status.st_size
        and len(index.keys) == about["samples"] > 0
        and index.offsets.shape == index.sizes.shape == shape
        and index.offsets.dtype == index.sizes.dtype == np.int64
        and len(bytes.fromhex(index.content)) == 32
        and bool((index.sizes >= 0).all() and (index.offsets >= -1).all())
        and int((index.offsets + index.sizes).max()) <= status.st_size
    )


def sampled_content(path: str) -> str:
    """The digest of a shard's blocks, evenly spread; of all of a small shard. SHA-256, in hexadecimal digits."""
    total = hashlib.sha256()
    size = os.stat(path).st_size
    last = max(0, size - _BLOCK)
    starts = range(0, size, _BLOCK) if size <= _BLOCK * _BLOCKS else [last * i // (_BLOCKS - 1) for i in range(_BLOCKS)]
    with open(path, "rb") as stream:
        for start in starts:
            stream.seek(start)
            total.update(stream.read(_BLOCK))
    return total.hexdigest()
