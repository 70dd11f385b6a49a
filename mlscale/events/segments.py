"""A stream on disk: a folder per day, a Parquet file per flush, written aside, renamed, and never changed afterwards.

    <folder>/2026-01-05/20260105T101112123456-4711.3f9a0c-17.parquet

The name has the time of the first row, the process id, a token of the writer, and the writer's own count, so several
processes, on several machines, can write at the same time. Readers ignore the name of an unfinished file.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mlscale.atomic_files import ASIDE, make_folders, write_bytes
from mlscale.errors import Exit, MLScaleError
from mlscale.events.stream_schema import convert_to_contract, list_read_columns, read_replaced_names, stamp_schema

_NAME = re.compile(r"(\d{8}T\d{12})-(\d+\.[0-9a-f]+)-(\d+)\.parquet")
_MAX_SEGMENT_BYTES = 1 << 30
"""The most bytes of a segment, unpacked, that are read: it may come from anybody. A writer keeps to 64 MiB."""
_ABANDONED_SECONDS = 3600.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Segment:
    """A file of a stream.

    Attributes:
        path: of the file.
        time: of its first row, UTC.
    """

    path: Path
    time: datetime

    @property
    def is_compacted(self) -> bool:
        """True if it was joined from others, and may replace some that are still there."""
        return self.path.name.split("-")[1].startswith("00.")

    @property
    def is_repeatable(self) -> bool:
        """True if its name follows from what it holds, so that its writer may replace it."""
        return self.path.name.split("-")[1].startswith("0.")

    @property
    def bytes(self) -> int:
        """The size of the file; 0 if it was removed meanwhile."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


class SegmentAppender:
    """Writes segments of one stream, one after the other; to be used by one thread.

    Args:
        folder: of the stream.
        contract: event or label.
        writer: the writer's part of the file names, a number, '.' and hexadecimal digits; unique by default.
    """

    def __init__(self, folder: Path, contract: str, writer: str | None = None) -> None:
        self.folder, self._contract = folder, contract
        self._writer = writer or f"{os.getpid()}.{secrets.token_hex(3)}"
        self._count = 0

    def append_table(self, table: pa.Table) -> int:
        """Write a table of at least one row as a segment, synced to disk; return its bytes.

        Raises:
            MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
        """
        written = self.write_segment(table, self._count)
        self._count += 1
        return written

    def write_segment(
        self, table: pa.Table, count: int, *, day: Path | None = None, replaces: Sequence[str] = ()
    ) -> int:
        """Write a table (pyarrow) as a segment; return its bytes.

        Args:
            table: at least one row.
            count: the last part of the name; a segment of the same name is replaced.
            day: the folder to write into; that of the first row by default.
            replaces: names of segments in the folder that are invalid from then on.
        """
        first = _EPOCH + timedelta(microseconds=table["time"].cast(pa.int64())[0].as_py())
        sink = pa.BufferOutputStream()
        table = table.replace_schema_metadata(stamp_schema(self._contract, table.schema, replaces).metadata)
        # Dictionaries make small segments larger; zstd, which takes three times as long, is for those that stay.
        pq.write_table(table, sink, compression="zstd" if replaces else "snappy", use_dictionary=False)
        content = sink.getvalue().to_pybytes()
        day = day or self.folder / first.strftime("%Y-%m-%d")
        try:
            make_folders(day)
            write_bytes(day / f"{first.strftime('%Y%m%dT%H%M%S%f')}-{self._writer}-{count}.parquet", content)
        except MLScaleError as error:
            raise MLScaleError(
                "can't write events",
                where=error.where,
                why=error.why,
                fix="events=<a folder you may write to, with free space>",
                exit=Exit.ENVIRONMENT,
            ) from error
        return len(content)


def list_segments(folder: Path) -> list[Segment]:
    """Return the segments of a stream, oldest first."""
    entries = []
    for day in sorted(_list_entries(folder)):
        for path in _list_entries(day):
            match = _NAME.fullmatch(path.name)
            with contextlib.suppress(ValueError):  # not a date, such as 31 February
                if match:
                    time_ = datetime.strptime(match[1], "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)
                    entries.append((time_, match[2], int(match[3]), path))
    # Sorted by the parts of the name: of equal times, those of one writer stay in the order of its count, as numbers.
    return [Segment(path, time_) for time_, _, _, path in sorted(entries)]


class SegmentFacts(NamedTuple):
    """The facts in the footer of a segment: the latest time of its rows, and the names of those that it replaces."""

    latest: datetime
    replaces: tuple[str, ...]


@lru_cache(4096)  # a segment never changes, and each read of the stream needs the facts
def read_segment_facts(path: Path) -> SegmentFacts:
    """Return the facts of a segment; of one that can't be read, that it replaces none."""
    try:
        with pq.ParquetFile(path) as file:
            return SegmentFacts(_find_latest_time(file), read_replaced_names(file.schema_arrow))
    except (pa.ArrowException, OSError, ValueError, TypeError):
        # The latest time, so that readers do not skip it as too old: they try it, and report the reason.
        return SegmentFacts(datetime.max.replace(tzinfo=UTC), ())


def select_current_segments(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments that no compacted one replaces."""
    replaced: set[Path] = set()
    for segment in segments:
        if segment.is_compacted:
            replaced |= {segment.path.parent / name for name in read_segment_facts(segment.path).replaces}
    return [segment for segment in segments if segment.path not in replaced]


def read_segment(contract: str, segment: Segment, *, samples: bool, since: datetime | None) -> Any:
    """Return a segment's table (pyarrow) with the contract's columns, the raw inputs only with `samples`; None if all
    rows are before `since`.

    Raises:
        FileNotFoundError: it was removed since it was listed.
        MLScaleError: it is truncated, too large, or not a segment of this stream.
    """
    where = str(segment.path)
    try:
        with pq.ParquetFile(segment.path) as file:
            # By the statistics in the footer: rows that are too old are not read.
            if file.metadata.num_row_groups and since is not None and _find_latest_time(file) < since:
                return None
            groups = range(file.metadata.num_row_groups)
            if sum(file.metadata.row_group(group).total_byte_size for group in groups) > _MAX_SEGMENT_BYTES:
                raise MLScaleError(
                    "a segment is too large",
                    where=where,
                    why=f"over {_MAX_SEGMENT_BYTES:,} bytes unpacked",
                    fix=f"mv {shlex.quote(where)} ~, out of the folder",
                )
            table = file.read(columns=list_read_columns(file.schema_arrow, samples=samples))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MLScaleError(
            "a segment is corrupt",
            where=where,
            why=" ".join(str(error).split())[:300],
            fix=f"mv {shlex.quote(where)} ~, out of the folder; or restore it from a copy",
        ) from error
    return convert_to_contract(contract, table, where)


def read_ids(segment: Segment) -> Any:
    """Return the ids of a segment (pyarrow); None if it can't be read, or is not there any more."""
    try:
        with pq.ParquetFile(segment.path) as file:
            return file.read(columns=["id"])["id"].cast(pa.string()).combine_chunks()
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None


def count_rows(segment: Segment) -> int:
    """Return the number of rows of a segment; 0 if it can't be read."""
    try:
        with pq.ParquetFile(segment.path) as file:
            return int(file.metadata.num_rows)
    except (pa.ArrowException, OSError):
        return 0


def prune_segments(folder: Path, max_bytes: int) -> int:
    """Remove the oldest segments of a stream until it has at most `max_bytes`; return the bytes that are left."""
    stored = list_segments(folder)
    sizes = [segment.bytes for segment in stored]
    total = sum(sizes)
    for segment, size in zip(stored, sizes, strict=True):
        if total <= max_bytes:
            break
        segment.path.unlink(missing_ok=True)
        total -= size
        with contextlib.suppress(OSError):  # the folder has other segments
            segment.path.parent.rmdir()
    return total


def remove_unfinished_segments(folder: Path) -> None:
    """Remove unfinished files of killed writers, if they are over an hour old."""
    for day in _list_entries(folder):
        for path in day.glob(f"{ASIDE}*"):
            with contextlib.suppress(OSError):
                # An hour: a younger file may belong to a writer that is still at work.
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


def _find_latest_time(file: pq.ParquetFile) -> datetime:
    """Return the latest time of a file, by its statistics; `datetime.max` where it has none."""
    latest = datetime.max.replace(tzinfo=UTC)
    column_index = file.schema_arrow.get_field_index("time")
    times = []
    for group in range(file.metadata.num_row_groups):
        statistics = file.metadata.row_group(group).column(column_index).statistics if column_index >= 0 else None
        # A file without statistics is read rather than left out.
        if statistics is None or not statistics.has_min_max or not isinstance(statistics.max, datetime):
            return latest
        stated = statistics.max
        # Times of a segment are UTC, also where the statistics come without a time zone.
        times.append(stated if stated.tzinfo else stated.replace(tzinfo=UTC))
    return max(times, default=latest)


def _list_entries(folder: Path) -> Iterator[Path]:
    """Yield the entries of a folder; none if it is absent or not a folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from folder.iterdir()
