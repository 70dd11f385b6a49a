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
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mlscale.atomic_files import ASIDE, make_folders, write_bytes
from mlscale.errors import Exit, MLScaleError
from mlscale.events.stream_schema import build_file_schema, convert_to_contract

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
        self.folder, self._schema = folder, build_file_schema(contract)
        self._writer = writer or f"{os.getpid()}.{secrets.token_hex(3)}"
        self._count = 0

    def append_rows(self, columns: dict[str, Any]) -> int:
        """Write columns of at least one row as a segment, synced to disk; return its bytes.

        Raises:
            MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
        """
        written = self.write_segment(pa.table(columns, schema=self._schema), self._count)
        self._count += 1
        return written

    def write_segment(self, table: pa.Table, count: int) -> int:
        """Write a table (pyarrow) as a segment with this count, replacing an earlier one; return its bytes."""
        first = _EPOCH + timedelta(microseconds=table["time"].cast(pa.int64())[0].as_py())
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        content = sink.getvalue().to_pybytes()
        day = self.folder / first.strftime("%Y-%m-%d")
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


def read_segment(contract: str, segment: Segment, *, columns: list[str], since: datetime | None) -> Any:
    """Return a segment's table (pyarrow) with the contract's columns, null where they are not in `columns`; None if all
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
                    fix=f"move it out of the folder: mv {where} ~",
                )
            table = file.read(columns=columns)
            for absent in [name for name in build_file_schema(contract).names if name not in columns]:
                table = table.append_column(
                    absent, pa.nulls(len(table), build_file_schema(contract).field(absent).type)
                )
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MLScaleError(
            "a segment is corrupt",
            where=where,
            why=" ".join(str(error).split())[:300],
            fix=f"restore it from a copy, or move it out of the folder: mv {where} ~",
        ) from error
    return convert_to_contract(contract, table, where)


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
        if statistics is None or not statistics.has_min_max or not isinstance(statistics.max, datetime):
            return latest
        stated = statistics.max
        times.append(stated if stated.tzinfo else stated.replace(tzinfo=UTC))
    return max(times, default=latest)


def _list_entries(folder: Path) -> Iterator[Path]:
    """Yield the entries of a folder; none if it is absent or not a folder."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        yield from folder.iterdir()
