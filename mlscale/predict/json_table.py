"""Read the rows of a JSON or JSON Lines file by number: objects by column, or texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.data.table_parsing.table_form import number_rows

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_COLUMN = "text"
"""The column of the texts of a file that holds texts alone."""
Row = Mapping[str, object]


class JsonTable:
    """A .jsonl, .ndjson or .json file, in memory; a column that a row lacks is missing there.

    Args:
        path: of the file: an object or a text in each line, or a list of them in a .json file.

    Raises:
        ValueError: it is not JSON, or holds something else; the message names the line.
    """

    def __init__(self, path: str) -> None:
        import pyarrow as pa

        self._rows = [_convert_document(document, where) for where, document in _read_documents(Path(path))]
        if not self._rows:
            raise ValueError("it holds no rows")
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        self.schema = pa.schema([(name, _infer_type([row.get(name) for row in self._rows])) for name in names])
        self.rows = len(self._rows)
        self.numbers = number_rows(Path(path), self.rows)

    def take(self, first: int, count: int, columns: list[str]) -> pa.Table:
        """Return rows of some columns."""
        import pyarrow as pa

        fields = [self.schema.field(name) for name in columns]
        arrays = [_build_array(self.take_values(first, count, field.name), field.type) for field in fields]
        return pa.table(arrays, schema=pa.schema(fields))

    def take_values(self, first: int, count: int, column: str) -> list[Any]:
        """Return the values of a column as JSON has them, so that they are encoded as those of a request."""
        return [row.get(column) for row in self._rows[first : first + count]]

    def read_as_bytes(self, column: str) -> None:
        """Take a column of texts as its bytes."""
        import pyarrow as pa

        position = self.schema.get_field_index(column)
        self.schema = self.schema.set(position, pa.field(column, pa.binary()))


def _read_documents(path: Path) -> Iterator[tuple[str, object]]:
    """Yield the place and the content of each row."""
    if path.suffix.lower() == ".json":
        document = json.loads(path.read_text("utf-8-sig"))
        listed = document if isinstance(document, list) else [document]
        yield from ((f"item {number}", item) for number, item in enumerate(listed, 1))
        return
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number} is not JSON: {error}") from error


def _convert_document(document: object, where: str) -> Row:
    if isinstance(document, str):
        return {TEXT_COLUMN: document}
    if isinstance(document, dict):
        return document
    raise ValueError(f"{where} is neither an object, a row by column, nor a text")


def _infer_type(values: Sequence[object]) -> pa.DataType:
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pa.null()
    if kinds == {bool}:
        return pa.bool_()
    # An id of 7 is not 7.0; a whole number that no int64 is, is rounded.
    if kinds == {int} and all(value is None or _fits_int64(value) for value in values):
        return pa.int64()
    return pa.float64() if kinds <= {int, float} else pa.string()


def _fits_int64(value: object) -> bool:
    return isinstance(value, int) and -(1 << 63) <= value < 1 << 63


def _build_array(values: Iterable[object], type_: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_string(type_) or pa.types.is_binary(type_):
        # A column may have numbers, too; half of a surrogate pair, which JSON can hold, is not UTF-8.
        values = [
            value
            if value is None
            else (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace")
            for value in values
        ]
        return pa.array(values, pa.binary()).cast(type_)
    return pa.array(values, type_)
