"""The images of a Parquet file, unpacked once: a page of it has many, so that one can't be read alone.

They are written to the cache as an Arrow file, whose parts are read where they lie.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.atomic_files import ASIDE, create_write_error, make_folders, remove_leftovers
from mlscale.data.shards.system_files import report_once
from mlscale.errors import MLScaleError
from mlscale.file_locks import lock_file

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "image_tables"
_ROWS = 64
"""Rows that are in memory at a time: images of some megabytes each."""
_MOST_TIMES = 100
"""Bytes that are written for each one of the file, at most: encoded images hardly get smaller."""
_SPARE = 1 << 30


def unpack_images(path: Path, column: str, cache: Path, where: str) -> Path:
    """Return the Arrow file with the images of a column of a Parquet file; written now unless it is in the cache.

    Args:
        path: the Parquet file.
        column: of bytes, or of structs of bytes and a path.
        cache: the folder of such files.
        where: the key path of the file, for errors.

    Raises:
        MLScaleError: the disk is full (exit code 5); the file is malformed, or unpacks to far more than images do.
    """
    # A file that has its name is whole.
    target = cache / FOLDER / f"{_compute_name(path, column)}.arrow"
    if target.is_file():
        return target
    report_once(f"data      {where}: images of Parquet files are unpacked into {target.parent}, once")
    aside = target.with_name(f"{ASIDE}{target.name}-{secrets.token_hex(4)}")
    try:
        make_folders(target.parent)
        # Of earlier calls that were killed.
        remove_leftovers(target.parent)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "wb") as file:
            # Several processes may do the same work: the first to finish wins, and the others' file is equal.
            lock_file(file.fileno())
            _write_arrow(path, column, file, where)
            file.flush()
            os.fsync(file.fileno())
            aside.replace(target)
    except OSError as error:
        raise create_write_error(target, error) from error
    finally:
        # After an error; once it is renamed there is none.
        aside.unlink(missing_ok=True)
    return target


def _compute_name(path: Path, column: str) -> str:
    """Return a name that changes if the file does."""
    status = path.stat()
    text = f"1\0{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0{column}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _write_arrow(path: Path, column: str, file: Any, where: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    most, written = _MOST_TIMES * path.stat().st_size + _SPARE, 0
    # Without the file's metadata, which its batches may lack.
    schema = pa.schema([pa.field(column, parquet.read_schema(path).field(column).type)])
    with pa.ipc.new_stream(file, schema) as writer:
        for batch in _read_batches(path, column, where):
            writer.write_batch(pa.RecordBatch.from_arrays([batch.column(column)], schema=schema))
            written += batch.nbytes
            # A billion equal values are encoded in a few bytes.
            if written > most:
                raise MLScaleError(
                    f"{path.name} unpacks to more than {most:,} bytes",
                    where=where,
                    why=f"that is {_MOST_TIMES} times its size, and encoded images hardly get smaller",
                    fix="write the images themselves into the column, each in the bytes of its file",
                )


def _read_batches(path: Path, column: str, where: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a column.

    Raises:
        MLScaleError: the file is malformed, or its bytes are others than its checksums state.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # Many writers store checksums, and few readers compare them.
        with parquet.ParquetFile(path, page_checksum_verification=True) as source:
            yield from source.iter_batches(batch_size=_ROWS, columns=[column])
    # OSError of reading, too: of writing it is about the cache.
    except (pa.ArrowException, OSError) as error:
        raise MLScaleError(
            f"{path.name} cannot be read as Parquet",
            where=where,
            why=" ".join(str(error).split())[:300],
            fix="write it again",
        ) from error
