"""Rows of production as a Parquet file, which `data=table` reads, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlscale.atomic_files import make_folders
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.table_parsing.columns import DataTable
from mlscale.data.table_parsing.table_files import read_table
from mlscale.data.windows.window_folder import WHERE

_FILE = "rows.parquet"


def write_table_window(
    folder: Path,
    samples: Sequence[Mapping[str, Any]],
    labels: Sequence[Any],
    encoder: TableEncoder,
    targets: Sequence[str],
) -> None:
    """Write rows with their targets, under the names of the training columns.

    Args:
        folder: the new folder of the file.
        samples: values by column.
        labels: of each: the name of a class, a number, or of several targets a number for each by name.
        encoder: of the rows.
        targets: the columns of the labels.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {}
    for column in encoder.columns:
        values = [column.read_value(sample[column.name]) for sample in samples]
        # NaN and the empty text are missing values.
        columns[column.name] = (
            pa.array(values, pa.float64(), from_pandas=True)
            if column.type == "number"
            else pa.array([value or None for value in values], pa.string())
        )
    for target in targets:
        columns[target] = pa.array([label[target] if isinstance(label, Mapping) else label for label in labels])
    make_folders(folder)
    parquet.write_table(pa.table(columns), folder / _FILE)


def read_table_window(folder: Path, encoder: TableEncoder, classes: Sequence[str]) -> DataTable:
    """Return the rows of a window.

    Args:
        folder: as `write_table_window` wrote it.
        encoder: of the rows.
        classes: the target, where it is a class.
    """
    categories = [column.name for column in encoder.columns if column.type == "category"]
    # Of few rows all categories may read as numbers, and a column without any value as nothing.
    table = read_table(str(folder / _FILE), where=WHERE, texts=[*categories, *classes])
    return DataTable(table.columns, [key.partition(":")[2] for key in table.keys], table.unreadable)
