"""Files of rows, opened: their small columns in memory, their bytes of images where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.data.image_tables.find_rows import ARROW
from mlscale.data.image_tables.unpacked_images import unpack_images
from mlscale.data.table_parsing.table_files import read_arrow_table
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    import pyarrow as pa

_PARQUET = ".parquet"
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


def open_row_file(path: Path, where: str) -> RowFile:
    """Open a file of rows.

    Raises:
        MLScaleError: it is malformed, cut off or too large.
    """
    ending = path.suffix.lower()
    if ending == _PARQUET:
        return RowFile(path, _read_parquet_schema(path, where), None)
    # A table of paths is small; one of bytes is a file that is mapped, or Parquet.
    table = _open_arrow(path, where) if ending == ARROW else read_arrow_table(path, where)
    return RowFile(path, table.schema, table)


def check_same_columns(files: Sequence[RowFile], names: Sequence[str], where: str) -> None:
    """Raise if a file lacks one of the columns that are used, or has it in another type.

    Raises:
        MLScaleError: one does.
    """
    # Columns that are not used may differ.
    for file in files[1:]:
        for name in names:
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


def _format_type(file: RowFile, name: str) -> str:
    return str(file.schema.field(name).type) if name in file.schema.names else "absent"


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
