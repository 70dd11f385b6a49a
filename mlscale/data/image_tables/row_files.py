"""Files of rows: found by a path, a glob or a folder, their small columns in memory, their images where they are."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.atomic_files import ASIDE, create_write_error, make_folders, remove_leftovers
from mlscale.data.shards.system_files import report_once
from mlscale.data.table_parsing.columns import DataTable
from mlscale.data.table_parsing.table_files import find_table_files, read_arrow_table, require_package
from mlscale.errors import MLScaleError
from mlscale.file_locks import lock_file

if TYPE_CHECKING:
    import pyarrow as pa

FEATURES = b"huggingface"
"""The key of the types in the metadata of a schema that Hugging Face's `datasets` wrote."""
IMAGE = "image"
TARGETS = {"one": "label", "several": "labels", "mask": "mask"}
"""The usual column of images, and by the kind of label that of what is predicted: those of `mlscale prepare`."""
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The names of splits here, by those of others."""
_PARQUET, _ARROW = ".parquet", ".arrow"
_END = b"\xff\xff\xff\xff\0\0\0\0"
"""Ends a stream of Arrow's: without it rows are missing that no reader would miss."""
_MAGIC = b"ARROW1"


@dataclass(frozen=True)
class RowFile:
    """A file of rows.

    Attributes:
        path: of the file.
        schema: names and types of its columns.
        table: all of it, where it is in memory or memory-mapped; None of Parquet, whose columns are read when needed.
    """

    path: Path
    schema: pa.Schema
    table: pa.Table | None = field(repr=False)

    def read_columns(self, names: Sequence[str], where: str) -> pa.Table:
        """Return columns, in memory."""
        if self.table is not None:
            return self.table.select(list(names))
        return read_arrow_table(self.path, where, list(dict.fromkeys(names)))

    def open_bytes(self, name: str, cache: Path, where: str) -> pa.ChunkedArray:
        """Return a column of bytes without reading them: each is read where it lies."""
        if self.table is not None:
            return self.table.column(name)
        return _open_arrow(unpack_images(self.path, name, cache, where), where).column(name)

    def read_class_names(self, name: str) -> tuple[str, ...]:
        """Return the names of a column's classes by number, where `datasets` has recorded them; else none."""
        # By anyone who wrote the file: of another form, it is as if there were none.
        try:
            kind = json.loads((self.schema.metadata or {})[FEATURES])["info"]["features"][name]
            names = kind["names"] if "names" in kind else kind["feature"]["names"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return ()
        is_known = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return tuple(names) if is_known and len(set(names)) == len(names) else ()


def find_rows(spec: str | Sequence[str], where: str, cache: Path) -> dict[str, tuple[Path, ...]]:
    """Return the files that `data.train` or another key names, by split; 'train' where they have no splits.

    Args:
        spec: paths or globs of files; or a folder: of Parquet files, or one that Hugging Face's `datasets` reads.
        where: the key path, for errors.
        cache: the folder of what `datasets` converts.

    Raises:
        MLScaleError: nothing is there, or `datasets` can't read the folder, or is not installed (exit code 5).
    """
    patterns = [spec] if isinstance(spec, str) else list(map(str, spec))
    folder = Path(patterns[0]).expanduser()
    # Several paths are files: folders have splits, which would have to be joined.
    if len(patterns) != 1 or not folder.is_dir():
        return {"train": tuple(find_table_files(patterns, where, (_ARROW,), takes_folders=True))}
    if any(folder.glob(f"*{_PARQUET}")):
        return {"train": tuple(find_table_files([f"{glob.escape(str(folder))}/*{_PARQUET}"], where))}
    return _find_dataset_splits(folder, where, cache)


def get_single_split(listed: Mapping[str, tuple[Path, ...]], where: str) -> tuple[Path, ...]:
    """Return the files of a folder that holds one split.

    Raises:
        MLScaleError: it holds several.
    """
    if len(listed) > 1:
        raise MLScaleError(
            f"this folder holds several splits: {', '.join(listed)}",
            where=where,
            why="data.train takes them all; another key names one",
            fix=f"{where}=null, to take the splits of data.train; or {where}=<the files of one of them>",
        )
    return next(iter(listed.values()))


def _find_dataset_splits(folder: Path, where: str, cache: Path) -> dict[str, tuple[Path, ...]]:
    """Return the Arrow files of a folder that `datasets` reads, by the names of splits here."""
    require_package("datasets", "datasets", where)
    # Imported on use: it takes seconds, and brings pandas.
    import datasets

    datasets.disable_progress_bars()
    try:
        if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
            opened = datasets.load_from_disk(str(folder))
        else:
            opened = datasets.load_dataset(str(folder), cache_dir=str(cache / FOLDER))
    except Exception as error:  # its errors share no class
        raise MLScaleError(
            f"datasets can't read the folder {str(folder)!r}",
            where=where,
            why=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            fix=f"{where}='{folder}/*.parquet' or another glob, for the files themselves",
        ) from error
    splits = {"train": opened} if isinstance(opened, datasets.Dataset) else opened
    if any(split.num_rows != split.data.num_rows for split in splits.values()):
        raise MLScaleError(
            f"the dataset {str(folder)!r} holds a selection of the rows of its files",
            where=where,
            why="it was saved without its rows being written",
            fix="`dataset.flatten_indices().save_to_disk('saved')`, in Python with datasets",
        )
    named = {SPLIT_NAMES.get(name.lower(), name): split for name, split in splits.items()}
    # The caller asked for one split, whatever it is called.
    if len(named) > 1 and ("train" not in named or set(named) - {"train", "val", "test"}):
        raise MLScaleError(
            f"the splits of {str(folder)!r} are called {', '.join(splits)}",
            where=where,
            why="of several one is called train, the others validation (val, dev) or test",
            fix=f"{where}=<the files of one split>, and data.val=… for another",
        )
    # In this order everywhere: it is part of the data's version.
    order = [name for name in ("train", "val", "test") if name in named] or list(named)
    return {name: tuple(Path(file["filename"]) for file in named[name].cache_files) for name in order}


def open_row_file(path: Path, where: str) -> RowFile:
    """Open a file of rows.

    Raises:
        MLScaleError: it is malformed, cut off or too large.
    """
    ending = path.suffix.lower()
    if ending == _PARQUET:
        return RowFile(path, _read_parquet_schema(path, where), None)
    # A table of paths is small; one of bytes is a file that is mapped, or Parquet.
    table = _open_arrow(path, where) if ending == _ARROW else read_arrow_table(path, where)
    return RowFile(path, table.schema, table)


def check_columns(files: Sequence[RowFile], names_by_key: Mapping[str, Sequence[str]], where: str) -> None:
    """Raise if the first file lacks columns that keys of the configuration name, or another has them otherwise.

    Raises:
        MLScaleError: a column is not there, or has another type.
    """
    # Whatever they hold: only the names are compared.
    DataTable({name: np.empty(0) for name in files[0].schema.names}, []).require_columns(names_by_key)
    # Columns that are not used may differ.
    for file in files[1:]:
        for name in dict.fromkeys(name for names in names_by_key.values() for name in names):
            kinds = [
                str(one.schema.field(name).type) if name in one.schema.names else "absent" for one in (files[0], file)
            ]
            # A column that is empty in one file has no type of its own.
            if kinds[0] != kinds[1] and "null" not in kinds:
                raise MLScaleError(
                    f"{file.path.name} and {files[0].path.name} differ in the column {name!r}",
                    where=where,
                    why=f"it is {kinds[1]} in the one, and {kinds[0]} in the other",
                    fix="give files of one table",
                )


def _read_parquet_schema(path: Path, where: str) -> pa.Schema:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _build_unreadable_error(path, "Parquet", " ".join(str(error).split())[:300], where) from error


def _open_arrow(path: Path, where: str) -> pa.Table:
    """Return an Arrow file or stream, memory-mapped: of its rows nothing is read yet."""
    import pyarrow as pa

    try:
        source: Any = pa.memory_map(str(path))
        start, size = source.read(len(_MAGIC)), source.size()
        source.seek(max(0, size - len(_END)))
        end = source.read()
        source.seek(0)
        # A file has a footer, which is missing if it is cut off; a stream has but its end.
        if start == _MAGIC:
            table = pa.ipc.open_file(source).read_all()
        elif end != _END:
            raise _build_unreadable_error(
                path, "Arrow", f"it is cut off: {size:,} bytes without the end of a stream", where
            )
        else:
            table = pa.ipc.open_stream(source).read_all()
        # By anyone who wrote the file: a wrong offset would be followed out of it.
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise _build_unreadable_error(path, "Arrow", " ".join(str(error).split())[:300], where) from error
    return table


def _build_unreadable_error(path: Path, kind: str, why: str, where: str) -> MLScaleError:
    return MLScaleError(
        f"{path.name} cannot be read as {kind}", where=where, why=why, fix=f"write it again, or copy it again to {path}"
    )


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
