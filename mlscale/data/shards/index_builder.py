"""Building the index of shards: a saved index is used if its shard is unchanged, else the shard is scanned."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlscale.atomic_files import suggest_restore
from mlscale.data.shards.index_files import (
    TAR,
    SampleKeys,
    SavedIndex,
    ShardIndex,
    UnreadableIndexError,
    compute_content_digest,
    get_adjacent_index_path,
    get_cached_index_path,
    load_index,
    save_index,
    settle_unread,
    use_index,
)
from mlscale.data.shards.shard_index import NO_DIGEST, NO_STATE, Index, State, get_file_state
from mlscale.data.shards.shard_paths import Shard
from mlscale.data.shards.small_members import SmallMembers, locate_small_members, read_small_members
from mlscale.data.shards.system_files import SkippedFiles, report_once, report_skipped
from mlscale.data.shards.tar_reader import BLOCK, END, is_header
from mlscale.data.shards.tar_scan import LostSamplesError, scan_tar
from mlscale.errors import MLScaleError, raise_all

_REMOTE_THREADS = 16
"""Shards that are asked for at a time: an answer takes tens of milliseconds, most of which is waiting."""
INDEX_LOCATIONS = ("auto", "cache", "beside")
"""The places of indexes: 'auto' is next to the shards if an index exists there, else the cache; 'cache' and 'beside'
(next to the shards) are always that place."""


class Scanner(NamedTuple):
    """The format of shards, and the function that reads where the members of their samples are."""

    container: str
    scan: Callable[[Shard, os.stat_result, str], ShardIndex]
    is_intact: Callable[[ShardIndex, int], bool] | None = None
    """Compares an open shard with checksums that its format has."""
    verify: bool = True
    """An index that can't be read, and may have had digests, is an error."""


class ForeignShard(Shard):
    """A shard that is not a file of this machine, and whose class knows how its index is made."""

    is_remote = True

    def load_or_scan(self, where: str, keep: str, scanner: Scanner) -> ShardIndex:
        """Return its index; see `build_index`.

        Raises:
            MLScaleError: it can't be read, is of another format, is corrupt, or holds no sample.
        """
        raise NotImplementedError

    def get_index_path(self) -> Path:
        """Return the path of its index file on this machine."""
        raise NotImplementedError

    def save_index(self, index: ShardIndex, container: str) -> None:
        """Write its index file on this machine.

        Raises:
            OSError: the folder cannot be written to.
        """
        raise NotImplementedError


def build_index(
    shards: Sequence[Shard], *, where: str, keep: str = "auto", verify: bool = True, scanner: Scanner | None = None
) -> Index:
    """Index all shards. What was indexed before is read, if the shard is still as it was; see `load_or_scan`.

    What is skipped is reported on stderr.

    Args:
        shards: in order.
        where: the key path of the split, for errors.
        keep: one of `INDEX_LOCATIONS`.
        verify: compare members with their digests, where `mlscale prepare` has recorded them.
        scanner: reads shards of their format; None for tars.

    Raises:
        MLScaleError: a shard is of another format, is corrupt, or holds no sample. All such shards at once.
    """
    problems: list[MLScaleError] = []
    parts: list[ShardIndex] = []
    states = []
    # By folder, so that one line reports all shards of a folder that is read-only.
    unwritable: dict[str, str] = {}

    chosen = (scanner or Scanner(TAR, scan_shard))._replace(verify=verify)

    def index_shard(shard: Shard) -> tuple[ShardIndex, State | None] | MLScaleError:
        try:
            if isinstance(shard, ForeignShard):
                return shard.load_or_scan(where, keep, chosen), None
            status = os.stat(shard.path)
            return load_or_scan(shard, status, where, keep, unwritable, chosen), get_file_state(status)
        except OSError as error:
            # Returned, and not raised, so that all corrupt shards are reported together.
            return create_read_error(shard, where, error)
        except MLScaleError as problem:
            return problem

    # Threads, because most of the time is waiting for reads, which release the interpreter's lock.
    with ThreadPoolExecutor(_REMOTE_THREADS if any(shard.is_remote for shard in shards) else 4) as pool:
        for result in pool.map(index_shard, shards):
            if isinstance(result, MLScaleError):
                problems.append(result)
            else:
                parts.append(result[0])
                states.append(result[1] or NO_STATE)
    raise_all(problems)
    for folder, why in unwritable.items():
        print(f"index     kept in the cache: {folder} cannot be written to ({why})", file=sys.stderr, flush=True)
    if verify and scanner is None:
        _report_without_digests(shards, parts, where)
    index = replace(_join_indexes(shards, parts, verify=verify), states=states)
    report_skipped(index.skipped, where=where)
    return index


def _report_without_digests(shards: Sequence[Shard], parts: Sequence[ShardIndex], where: str) -> None:
    """Print a line where others of the shards have digests, or `mlscale prepare` has written them with such."""
    without = [shard for shard, part in zip(shards, parts, strict=True) if part.digests is None]
    is_prepared = bool(shards) and (Path(shards[0].path).absolute().parent.parent / "dataset.json").is_file()
    if without and (is_prepared or len(without) < len(shards)):
        report_without_digests(without, where, len(shards))


def create_read_error(shard: Shard, where: str, error: OSError) -> MLScaleError:
    """Return the error of a shard that the system does not read."""
    what, why = f"the shard {shard.path!r} cannot be read", error.strerror or str(error)
    return MLScaleError(what, where=where, why=why, fix=suggest_restore(shard.path))


def report_without_digests(without: Sequence[Shard], where: str, total: int | None = None) -> None:
    """Print that shards of a split, which are all of it without a `total`, have no digests."""
    report_once(
        f"data      {where}: {len(without):,} of {total or len(without):,} shards have no recorded digests, so nothing "
        f"is compared there, the first: {without[0].name}; mlscale prepare with the same data=… records them"
    )


def _join_indexes(shards: Sequence[Shard], parts: Sequence[ShardIndex], *, verify: bool) -> Index:
    extensions = tuple(sorted({extension for part in parts for extension in part.extensions}))
    total = sum(len(part.keys) for part in parts)
    offsets = np.full((total, len(extensions)), -1, np.int64)
    sizes = np.zeros((total, len(extensions)), np.int64)
    is_known = verify and any(part.digests is not None for part in parts)
    # int64, because a CRC-32 may have any value of a uint32 and NO_DIGEST has to differ from all.
    digests = np.full((total, len(extensions)), NO_DIGEST, np.int64) if is_known else None
    small = _join_small(parts, (total, len(extensions)), extensions)
    start = 0
    for part in parts:
        columns = [extensions.index(extension) for extension in part.extensions]
        stop = start + len(part.keys)
        offsets[start:stop, columns] = part.offsets
        sizes[start:stop, columns] = part.sizes
        if digests is not None and part.digests is not None:
            digests[start:stop, columns] = part.digests
        start = stop
    return Index(
        shards=tuple(shards),
        keys=SampleKeys.join_parts(part.keys for part in parts),
        shard=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.keys) for part in parts]),
        extensions=extensions,
        offsets=offsets,
        sizes=sizes,
        contents=tuple(part.content for part in parts),
        digests=digests,
        skipped=_add_skipped(shards, parts),
        small=small,
    )


def _join_small(parts: Sequence[ShardIndex], shape: tuple[int, int], extensions: Sequence[str]) -> SmallMembers | None:
    if not any(part.small for part in parts):
        return None
    starts, contents, at, row = np.full(shape, -1, np.int64), [], 0, 0
    for part in parts:
        stop = row + len(part.keys)
        held = None if part.small is None else locate_small_members(part.small, part.offsets, part.sizes)
        if held is not None:
            columns = [extensions.index(extension) for extension in part.extensions]
            starts[row:stop, columns] = np.where(held.starts >= 0, held.starts + at, -1)
            contents.append(held.content)
            at += len(held.content)
        row = stop
    return SmallMembers(b"".join(contents), starts)


def _add_skipped(shards: Sequence[Shard], parts: Sequence[ShardIndex]) -> dict[str, SkippedFiles]:
    total: dict[str, SkippedFiles] = {}
    for shard, part in zip(shards, parts, strict=True):
        for kind, (number, first) in part.skipped.items():
            # Names that begin with the shard's, such as those of joined archives, need no prefix.
            before = total.get(
                kind, SkippedFiles(0, first if first.startswith(shard.name) else f"{shard.name}/{first}")
            )
            total[kind] = before._replace(number=before.number + number)
    return total


def load_or_scan(
    shard: Shard,
    status: os.stat_result,
    where: str,
    keep: str,
    unwritable: dict[str, str],
    scanner: Scanner | None = None,
) -> ShardIndex:
    """Return the index of one shard, and save it where `keep` puts it.

    Raises:
        MLScaleError: the shard is of another format, is corrupt, or holds no sample; or digests that were recorded of
            it can't be read.
    """
    chosen = scanner or Scanner(TAR, scan_shard)
    unread: list[UnreadableIndexError] = []
    adjacent, cached = get_adjacent_index_path(shard.path), get_cached_index_path(shard.path)
    near = None if keep == "cache" else use_index(partial(load_index, adjacent), unread)
    candidates = (near, use_index(partial(load_index, cached), unread))
    saved = [candidate for candidate in candidates if candidate is not None and candidate.container == chosen.container]
    index = _find_current(saved, status) or chosen.scan(shard, status, where)
    if index.digests is None:
        index = _keep_digests(index, saved, shard)
    settle_unread(unread, index, verify=chosen.verify)
    # A read for each label of a million takes seconds, and minutes from a disk that turns: from now on it is one.
    index = keep_small_members(index, shard.path)
    if keep == "beside":
        try:
            # It may be uploaded with the shards, and then spares a download before the first step.
            if near is None or index is not near.index:
                save_index(adjacent, shard.path, status, index, chosen.container)
            return index
        except OSError as error:
            unwritable[os.path.dirname(shard.path)] = error.strerror or str(error)
    # Only a new index, or one that has gained something, is written.
    if all(index is not candidate.index for candidate in saved):
        with suppress(OSError):  # A cache that cannot be written costs time, not the run.
            save_index(cached, shard.path, status, index, chosen.container)
    return index


def _find_current(saved: Sequence[SavedIndex], status: os.stat_result) -> ShardIndex | None:
    """Return a saved index of this very file: one with digests, then the nearest."""
    current = [candidate.index for candidate in saved if candidate.is_of_same_file(status)]
    return next((index for index in current if index.digests is not None), next(iter(current), None))


def keep_small_members(index: ShardIndex, path: str) -> ShardIndex:
    """Return an index that holds the contents of the shard's small members."""
    if index.small is not None:
        return index
    handle = os.open(path, os.O_RDONLY)
    try:
        return replace(index, small=read_small_members(handle, index.offsets, index.sizes))
    finally:
        os.close(handle)


def _keep_digests(index: ShardIndex, saved: Sequence[SavedIndex], shard: Shard) -> ShardIndex:
    """Keep the digests that were recorded of a shard that has changed since: they name the samples that did."""
    recorded = [candidate.index for candidate in saved if candidate.index.digests is not None]
    for before in recorded:
        if before.has_same_members(index):
            return replace(index, digests=before.digests)
    if recorded:
        report_once(
            f"data      {shard.path} was written again since mlscale prepare recorded its digests: they are not used"
        )
    return index


def scan_shard(shard: Shard, status: os.stat_result, where: str) -> ShardIndex:
    """Read the headers of one tar.

    Raises:
        MLScaleError: it is not a tar, is corrupt, or holds no sample.
    """
    try:
        scanned = scan_tar(shard.path, status.st_size)
        content = compute_content_digest(shard.path)
    except LostSamplesError as error:
        raise _build_corruption_error(shard, status.st_size, error, where) from error
    except OSError as error:
        raise create_read_error(shard, where, error) from error
    samples = scanned.samples
    if not samples:
        raise MLScaleError(
            f"the shard {shard.path!r} holds no sample",
            where=where,
            why="it has no member named key.extension"
            + "".join(f"; {kind}: {skipped.number:,}" for kind, skipped in scanned.skipped.items()),
            fix="members of a sample share a key: 000.jpg and 000.cls",
        )
    # Sorted, so that the index is the same whatever order the members have.
    extensions = sorted({extension for sample in samples for extension in sample.members})
    table = np.array(
        [[sample.members.get(extension, (-1, 0)) for extension in extensions] for sample in samples], dtype=np.int64
    )
    return ShardIndex(
        keys=SampleKeys.join_texts([sample.key for sample in samples]),
        extensions=tuple(extensions),
        offsets=np.ascontiguousarray(table[:, :, 0]),
        sizes=np.ascontiguousarray(table[:, :, 1]),
        content=content,
        skipped=scanned.skipped,
    )


def _build_corruption_error(shard: Shard, length: int, error: LostSamplesError, where: str) -> MLScaleError:
    path = shlex.quote(shard.path)
    if length == 0:
        what, why, fix = "is empty", str(error), f"write {path} again"
    elif not _has_tar_header(shard.path):
        what, why, fix = "is not a tar file", str(error), f"tar tf {path}   shows what tar makes of it"
    elif error.is_duplicate:
        what = "has two samples of one key in a row"
        why = f"{error}: which members belong together can't be known; {error.whole:,} samples begin before it"
        fix = f"write {path} again, with a key of its own for each sample"
    else:
        what = "is cut off" if error.is_cut else "is corrupt"
        why = f"{error}; {error.whole:,} samples begin before it"
        # Whole blocks before the cut and two blocks of zeros behind them are a complete tar again.
        block = -(-error.offset // BLOCK) * BLOCK
        repair = (
            f"truncate -s {block} {path} && truncate -s +{END} {path}   keeps what is before byte {block:,}"
            if error.is_cut
            else f"mkdir {path}.d; tar -xif {path} -C {path}.d; tar --sort=name -cf {path}.repaired -C {path}.d .   "
            "packs what tar can still read"
        )
        fix = f"restore the shard from where it came from; or {repair}"
    return MLScaleError(f"the shard {shard.path!r} {what}", where=where, why=why, fix=fix)


def _has_tar_header(path: str) -> bool:
    with open(path, "rb") as stream:
        header = stream.read(BLOCK)
    return header[257:262] == b"ustar" or is_header(header)
