"""Joins the many small segments of a stream into few large ones, also if the process is killed at any moment.

A large segment names in its metadata those that it replaces, so that one rename makes it valid and them invalid:
readers leave out what a segment that is there replaces. The replaced files are removed a minute later, when no reader
has them in its list any more; one that a kill left is removed by the next compaction.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlscale.atomic_files import make_folders
from mlscale.errors import MLScaleError
from mlscale.events.segments import (
    Segment,
    SegmentAppender,
    list_segments,
    read_segment,
    read_segment_facts,
    select_current_segments,
)
from mlscale.events.stream_schema import join_tables
from mlscale.file_locks import lock_file

SETTLED_SECONDS = 600.0
"""The age from which segments are joined: later rows of the same time are rare then."""
_LISTED_SECONDS = 60.0
_FEWEST, _SMALL_BYTES, _MOST_BYTES = 8, 4 << 20, 32 << 20
"""The fewest segments that are joined; a segment from this size on stays as it is; the most bytes of one step."""
_LOCK = ".{}.lock"  # next to the folder of the stream, which has days alone

Transform = Callable[[Any, str], Any]
"""From the joined rows and a token of their files to the rows that are kept."""


def compact_segments(
    folder: Path, contract: str, *, settled_s: float = SETTLED_SECONDS, transform: Transform | None = None
) -> int:
    """Join small segments of a stream; return how many were replaced. Without waiting where another process does.

    Args:
        folder: of the stream.
        contract: event or label.
        settled_s: the age from which segments are joined, s.
        transform: of the rows of joined segments; they are kept as they are by default.

    Raises:
        MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
    """
    if not folder.is_dir():
        return 0
    with contextlib.suppress(OSError), folder.with_name(_LOCK.format(folder.name)).open("wb") as file:
        lock_file(file.fileno())  # raises where another process compacts this stream
        remove_replaced_segments(folder, min(_LISTED_SECONDS, settled_s))
        groups = _group_segments(folder, contract, settled_s, is_each_examined=transform is not None)
        for segments, table in groups:
            _replace_segments(folder, contract, segments, table, transform)
        return sum(len(segments) for segments, _ in groups)
    return 0


def remove_replaced_segments(folder: Path, listed_s: float = _LISTED_SECONDS) -> None:
    """Remove the files that a compacted segment replaces, once it is older than a reader's list of files."""
    for segment in list_segments(folder):
        if segment.is_compacted and _compute_age(segment) >= listed_s:
            for name in read_segment_facts(segment.path).replaces:
                # Names alone, in the same folder: a file from elsewhere must not remove others.
                if Path(name).name == name:
                    (segment.path.parent / name).unlink(missing_ok=True)


def _group_segments(
    folder: Path, contract: str, settled_s: float, *, is_each_examined: bool
) -> list[tuple[list[Segment], Any]]:
    """Return the segments of each day and schema that are joined, with their rows.

    Args:
        is_each_examined: a segment that was not joined yet is returned even where it is one of few, since what joins
            them examines their rows.
    """
    groups: dict[tuple[Any, ...], tuple[list[Segment], list[Any]]] = {}
    total = 0
    for segment in select_current_segments(list_segments(folder)):
        size = segment.bytes
        # Those of `mlscale predict` have a name that follows from the part, which a repeated part replaces.
        if segment.is_repeatable or not 0 < size < _SMALL_BYTES or _compute_age(segment) < settled_s:
            continue
        # Bounds the memory of one step; what is left is joined by the next compaction.
        if total + size > _MOST_BYTES:
            break
        try:
            table = read_segment(contract, segment, samples=True, since=None)
        except (MLScaleError, FileNotFoundError):  # readers report it; it stays as it is
            continue
        total += size
        key = segment.path.parent, tuple(zip(table.schema.names, map(str, table.schema.types), strict=True))
        segments, tables = groups.setdefault(key, ([], []))
        segments.append(segment)
        tables.append(table)
    return [
        (segments, join_tables(tables))
        for segments, tables in groups.values()
        if len(segments) >= _FEWEST or (is_each_examined and not all(segment.is_compacted for segment in segments))
    ]


def _replace_segments(
    folder: Path, contract: str, segments: Sequence[Segment], table: Any, transform: Transform | None
) -> None:
    names = [segment.path.name for segment in segments]
    # From the names: a compaction that was killed is repeated into the same files.
    token = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
    table = table.sort_by("time")
    if transform is not None:
        table = transform(table, token)
    if len(table):
        appender = SegmentAppender(folder, contract, writer=f"00.{token}")
        appender.write_segment(table, 0, day=segments[0].path.parent, replaces=names)
        return
    # Nothing is kept here, so no segment could name them.
    for segment in segments:
        segment.path.unlink(missing_ok=True)


def _compute_age(segment: Segment) -> float:
    """Return the seconds since a file was written; 0 if it was removed meanwhile."""
    try:
        # Clocks of file servers differ a little: no file is from the future.
        return max(0.0, time.time() - segment.path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def write_apart(folder: Path, contract: str, table: pa.Table, token: str) -> None:
    """Write rows that are kept apart from their stream, once also if it is repeated."""
    if len(table):
        make_folders(folder)
        SegmentAppender(folder, contract, writer=f"00.{token}").write_segment(table, 0)
