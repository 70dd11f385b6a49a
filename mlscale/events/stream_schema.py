"""The columns of the two streams, events and labels: the contracts 'event' and 'label'.

Besides fixed columns an event has one for each quantity of its input (`input.<name>`) and of its output
(`output.<name>`): numbers (double) or categories (string), null where one is missing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.events import format1_streams as format1

INPUT, OUTPUT = "input.", "output."
"""How the names of the columns of a sample and of its prediction begin."""
_METADATA_KEY = b"mlscale"  # the key of the format in a file's metadata
MAX_COLUMNS = 10_000
"""The most columns of a file that are read: it may come from anybody."""

EVENT = pa.schema(
    [
        ("id", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("model", pa.string()),
        ("version", pa.string()),
        ("source", pa.string()),
        ("prediction", pa.string()),
        ("sample", pa.binary()),
        ("sample_kind", pa.string()),
        ("latency_ms", pa.float32()),
        ("outcome", pa.string()),
        ("group", pa.string()),
    ]
)
LABEL = pa.schema(
    [
        ("id", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("model", pa.string()),
        ("label", pa.string()),
        ("source", pa.string()),
    ]
)
SCHEMAS = {"event": EVENT, "label": LABEL}


def is_quantity(name: str) -> bool:
    """Return whether a column is one of an input or an output."""
    return name.startswith((INPUT, OUTPUT))


def stamp_schema(name: str, schema: pa.Schema, replaces: Sequence[str] = ()) -> Any:
    """Return the schema (pyarrow) of a new file of the contract `name`; its metadata has the format, and the names of
    the files that it replaces."""
    about = {"format": get_format_tag(name), **({"replaces": list(replaces)} if replaces else {})}
    return schema.with_metadata({_METADATA_KEY: json.dumps(about)})


def read_replaced_names(schema: pa.Schema) -> tuple[str, ...]:
    """Return the names of the files that a file with this schema replaces."""
    about = json.loads((schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    names = about.get("replaces", ()) if isinstance(about, dict) else ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def describe_schema(schema: pa.Schema) -> dict[str, Any]:
    """Return the document that the contract's JSON schema describes: format and columns of a file with this schema."""
    about = json.loads((schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    return {
        **(about if isinstance(about, dict) else {}),
        "columns": {field.name: _format_type(field.type) for field in schema},
    }


def _format_type(arrow: pa.DataType) -> str:
    """Return the name of a type, without the name of list elements, on which Parquet and Arrow disagree."""
    return f"list<{arrow.value_type}>" if pa.types.is_list(arrow) else str(arrow)


def list_read_columns(schema: pa.Schema, *, samples: bool) -> list[str]:
    """Return the columns of a file that are read; without `samples`, not the stored raw inputs, by far the largest."""
    return [name for name in schema.names if samples or name != "sample"]


def convert_to_contract(name: str, table: pa.Table, where: str) -> Any:
    """Return a table of any format with the columns of the contract `name`, in its types; a column that was not read
    is null.

    Raises:
        MLScaleError: it is of another contract or a later format, or lacks a column.
    """
    try:
        document = describe_schema(table.schema)
        expect_format(name, document, where)
        if len(table.schema.names) > MAX_COLUMNS:
            raise ValueError(f"it has {len(table.schema.names):,} columns")
        if document["format"].endswith("/1"):
            table = format1.convert_events(table) if name == "event" else format1.convert_labels(table)
        return _select_columns(SCHEMAS[name], table, has_quantities=name == "event")
    except (pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise MLScaleError(
            f"this file holds no {name}s",
            where=where,
            why=str(error)[:300],
            fix=f"mv {shlex.quote(where)} ~, out of the folder; or name a folder that mlscale serve has written",
        ) from error


def _select_columns(schema: pa.Schema, table: pa.Table, *, has_quantities: bool) -> Any:
    # By name: a file may have more columns, and another order.
    arrays, fields = [], []
    for field in schema:
        # Not read, or of before there were groups; a file that lacks another column is not of this stream.
        absent = field.name in ("sample", "group") and field.name not in table.schema.names
        arrays.append(pa.nulls(len(table), field.type) if absent else table[field.name].cast(field.type))
        fields.append(field)
    for name in filter(is_quantity, table.schema.names if has_quantities else ()):
        is_text = pa.types.is_string(table.schema.field(name).type)
        fields.append(pa.field(name, pa.string() if is_text else pa.float64()))
        arrays.append(table[name].cast(fields[-1].type))
    return pa.table(arrays, schema=pa.schema(fields))


def join_tables(tables: list[Any]) -> Any:
    """Return the rows of tables of one contract; a column that one lacks is null in its rows.

    A column of numbers in some and of texts in others, as after a change of the model's input, becomes texts.
    """
    kinds: dict[str, set[Any]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = [name for name, types in kinds.items() if len(types) > 1]
    for name in mixed:
        tables = [_cast_to_text(table, name) for table in tables]
    return pa.concat_tables(tables, promote_options="default")


def _cast_to_text(table: pa.Table, name: str) -> Any:
    position = table.schema.get_field_index(name)
    return table if position < 0 else table.set_column(position, name, table[name].cast(pa.string()))
