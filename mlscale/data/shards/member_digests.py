"""Digests of every member of shards: recorded once, while the data is known to be good, and compared ever after.

Some corruption no decoder notices: of flipped bits in a JPEG about a third give another picture without a warning.
CRC-32 finds every run of up to 32 wrong bits and all but one in four billion of the rest, and costs 23 µs for 95 KB,
where decoding them takes 1.1 ms. It does not protect against deliberate changes.
"""

from __future__ import annotations

import os
import shlex
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import create_write_error
from mlscale.data.shards.index_builder import (
    ForeignShard,
    Scanner,
    create_read_error,
    keep_small_members,
    load_or_scan,
    scan_shard,
)
from mlscale.data.shards.index_files import (
    TAR,
    ShardIndex,
    get_adjacent_index_path,
    get_cached_index_path,
    save_index,
)
from mlscale.data.shards.shard_index import get_file_state
from mlscale.data.shards.shard_paths import Shard
from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.report.text import format_count

_MAX_NAMES = 5


@dataclass(frozen=True)
class RecordedDigests:
    """The result of `record_digests`.

    Args:
        shards: whose digests were recorded now.
        compared: shards whose digests were recorded before, and are those of the present bytes.
        samples: in all of them.
        folders: of the index files.
        unit: what has a digest, or one of each of its members.
    """

    shards: int
    compared: int
    samples: int
    folders: tuple[Path, ...]
    unit: str = "shard"

    def __str__(self) -> str:
        done = [f"digests of {format_count(self.shards, self.unit)} recorded"] if self.shards else []
        done += [f"digests of {format_count(self.compared, self.unit)} compared"] if self.compared else []
        return ", ".join(done)


def record_digests(shards: Sequence[Shard], *, where: str, keep: str) -> RecordedDigests:
    """Read every member of all shards: write its digest to the index, or compare it with the recorded one.

    Args:
        shards: in order.
        where: the key path of the split, for errors.
        keep: where indexes are kept; see `build_index`.

    Raises:
        MLScaleError: members are not as they were when their digests were recorded, by their names; a shard is not a
            tar or is corrupt; an index file can't be written. Of all shards at once.
    """

    def record_or_catch(shard: Shard) -> tuple[bool, int, Path] | MLScaleError:
        try:
            return _record_shard(shard, where, keep)
        except MLScaleError as problem:
            return problem

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(record_or_catch, shards))
    raise_all([result for result in results if isinstance(result, MLScaleError)])
    done = [result for result in results if not isinstance(result, MLScaleError)]
    return RecordedDigests(
        shards=sum(is_new for is_new, _, _ in done),
        compared=sum(not is_new for is_new, _, _ in done),
        samples=sum(samples for _, samples, _ in done),
        folders=tuple(dict.fromkeys(path.parent for _, _, path in done)),
    )


def _record_shard(shard: Shard, where: str, keep: str) -> tuple[bool, int, Path]:
    """Return True if the digests are new, the shard's number of samples, and the path of its index file."""
    if isinstance(shard, ForeignShard):
        return _record_foreign(shard, where, keep)
    try:
        status = os.stat(shard.path)
        # Folders that cannot be written are not collected here: a `save_index` that fails below is an error.
        index = load_or_scan(shard, status, where, keep, {})
        digests = _compute_digests(shard, index, status)
    except OSError as error:
        raise create_read_error(shard, where, error) from error
    path = _choose_index_path(shard, keep)
    is_adjacent = path == get_adjacent_index_path(shard.path)
    if index.digests is not None:
        _compare_digests(shard, index, digests, where)
        return False, len(index.keys), path
    with _explain_unwritable(path, where, is_adjacent=is_adjacent):
        # Small members with them: where the shards are uploaded, labels are read from the index.
        save_index(path, shard.path, status, keep_small_members(replace(index, digests=digests), shard.path))
    return True, len(index.keys), path


def _record_foreign(shard: ForeignShard, where: str, keep: str) -> tuple[bool, int, Path]:
    """Record the digests of a shard on another machine: in the cache of this one, wherever indexes are saved."""
    index = shard.load_or_scan(where, keep, Scanner(TAR, scan_shard))
    with shard.open_copy() as path:
        digests = _compute_digests(Shard(shard.name, path), index, os.stat(path))
    if index.digests is not None:
        _compare_digests(shard, index, digests, where)
        return False, len(index.keys), shard.get_index_path()
    with _explain_unwritable(shard.get_index_path(), where, is_adjacent=False):
        shard.save_index(replace(index, digests=digests), TAR)
    return True, len(index.keys), shard.get_index_path()


@contextmanager
def _explain_unwritable(path: Path, where: str, *, is_adjacent: bool) -> Iterator[None]:
    """Raise an error with a remedy where an index can't be written.

    Args:
        path: of the index.
        where: the key path of the split; of shards that are being written the setting that chose their folder.
        is_adjacent: the index is next to its shard, and not in the cache.
    """
    try:
        yield
    except OSError as error:
        # The shards have just been written there: the caller knows which setting chose the folder.
        if not where.startswith("data."):
            raise create_write_error(path.parent, error) from error
        # By folder: what is the same for all of its shards is reported once.
        raise MLScaleError(
            f"the indexes of shards cannot be written to {str(path.parent)!r}",
            where="data.index" if is_adjacent else "MLSCALE_CACHE",
            why=error.strerror or str(error),
            fix="data.index=cache" if is_adjacent else "export MLSCALE_CACHE=<a folder that can be written to>",
            exit=Exit.ENVIRONMENT,
        ) from error


def _compute_digests(shard: Shard, index: ShardIndex, status: os.stat_result) -> NDArray[np.uint32]:
    """Return the CRC-32 of each member, uint32 (n, m), 0 where a sample lacks it."""
    digests = np.zeros(index.offsets.shape, np.uint32)
    handle = os.open(shard.path, os.O_RDONLY)
    try:
        for sample, column in np.argwhere(index.offsets >= 0).tolist():
            content = os.pread(handle, int(index.sizes[sample, column]), int(index.offsets[sample, column]))
            digests[sample, column] = zlib.crc32(content)
        # Digests of a shard that was written meanwhile would belong to neither of its states.
        if get_file_state(os.fstat(handle)) != get_file_state(status):
            raise MLScaleError(
                f"the shard {shard.path!r} was changed while its digests were computed",
                where=shard.path,
                fix="run it again once nothing writes to the shard",
            )
    finally:
        os.close(handle)
    return digests


def _choose_index_path(shard: Shard, keep: str) -> Path:
    # With 'auto' an index next to the shards is updated, and none is created there.
    near, far = get_adjacent_index_path(shard.path), get_cached_index_path(shard.path)
    return near if keep == "beside" or (keep == "auto" and near.is_file()) else far


def _compare_digests(shard: Shard, index: ShardIndex, digests: NDArray[np.uint32], where: str) -> None:
    wrong = np.argwhere((digests != index.digests) & (index.offsets >= 0)).tolist()
    if not wrong:
        return
    names = [f"{index.keys[sample]}.{index.extensions[column]}" for sample, column in wrong[:_MAX_NAMES]]
    # Both, since either file may hold the recorded digests.
    paths = [get_adjacent_index_path(shard.path), get_cached_index_path(shard.path)]
    if isinstance(shard, ForeignShard):
        paths = [shard.get_index_path()]
    files = [shlex.quote(str(path)) for path in paths if path.exists()]
    raise MLScaleError(
        f"{format_count(len(wrong), 'member')} of {shard.path!r} changed after the digests were recorded",
        where=where,
        why=f"{', '.join(names)}{', …' if len(wrong) > _MAX_NAMES else ''}",
        fix="restore the shard from where it came from; or, where you have changed it yourself, record it again: "
        f"rm {' '.join(files)}",
    )
