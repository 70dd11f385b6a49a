"""Write the table of samples, with the prediction for each, as Parquet. Contract 'samples'; needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import ASIDE, PRIVATE_FILE, create_write_error, make_folders, sync_folder
from mlscale.contracts import get_format_tag
from mlscale.task_types.collected_samples import Columns

if TYPE_CHECKING:
    pass

_METADATA_KEY = b"mlscale"  # key of the JSON document in the file's metadata
_ROW_GROUP = 65_536  # rows that are buffered and written as one row group: small ones compress badly and read slowly


def is_pyarrow_installed() -> bool:
    """Return whether pyarrow is installed."""
    # Without importing it, which takes time and memory.
    from importlib.util import find_spec

    return find_spec("pyarrow") is not None


class SampleTable:
    """A Parquet file that is written batch by batch and appears, complete, once it is closed; a `with` block that fails
    leaves nothing.

    Args:
        path: of the file; an existing one is replaced.
        about: kind, split, model and the like, saved in the file's metadata with its format.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        make_folders(path.parent)
        self.path, self._aside = path, path.with_name(f"{ASIDE}{path.name}")
        self._about = json.dumps({"format": get_format_tag("samples"), **about}, ensure_ascii=False)
        self._writer: Any = None
        self._waiting: list[Any] = []
        self._rows = 0

    def __enter__(self) -> SampleTable:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            # The block's own error must reach the caller, not a second one of this cleanup (a full disk fails again).
            with suppress(Exception):
                if self._writer is not None:
                    self._writer.close()
            with suppress(OSError):  # nor one of a disk that has become read-only
                self._aside.unlink(missing_ok=True)

    def add_samples(self, keys: Sequence[str], columns: Columns) -> None:
        """Add the rows of a batch."""
        import pyarrow as pa

        self._waiting.append(
            pa.table({"key": pa.array(keys, pa.string()), **{n: build_arrow_column(v) for n, v in columns.items()}})
        )
        self._rows += len(keys)
        if self._rows >= _ROW_GROUP:
            self._write_row_group()

    def close(self) -> None:
        """Commit the file; without rows, none is written."""
        self._write_row_group()
        if self._writer is None:
            return
        try:
            # The footer is written on close; only then is the file renamed, so that a reader never sees part of it.
            self._writer.close()
            self._aside.chmod(PRIVATE_FILE)
            self._aside.replace(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise create_write_error(self.path, error) from error

    def _write_row_group(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting, self._rows = [], 0
        try:
            # The schema is known with the first rows only: columns depend on the task type.
            if self._writer is None:
                schema = table.schema.with_metadata({_METADATA_KEY: self._about.encode()})
                self._writer = pq.ParquetWriter(self._aside, schema, compression="zstd")
            self._writer.write_table(table)
        except OSError as error:
            raise create_write_error(self.path, error) from error


def build_arrow_column(values: NDArray[Any]) -> Any:
    """Return a column (pyarrow) of numbers, (n,), or of lists, (n, k)."""
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    # From one flat buffer: a Python list of lists would be many times slower.
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).ravel()))
