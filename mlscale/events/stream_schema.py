"""The columns of the two streams, events and labels: the contracts 'event' and 'label'."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError

_METADATA_KEY = b"mlscale"  # the key of the format in a file's metadata

EVENT = pa.schema(
    [
        ("id", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("model", pa.string()),
        ("version", pa.string()),
        ("input_mean", pa.list_(pa.float32())),
        ("input_std", pa.list_(pa.float32())),
        ("sample", pa.binary()),
        ("dtype", pa.string()),
        ("shape", pa.list_(pa.int32())),
        ("label", pa.string()),
        ("predicted", pa.int32()),
        ("confidence", pa.float32()),
        ("probabilities", pa.list_(pa.float32())),
        ("latency_ms", pa.float32()),
        ("outcome", pa.string()),
    ]
)
LABEL = pa.schema(
    [
        ("id", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("model", pa.string()),
        ("label", pa.string()),
    ]
)
SCHEMAS = {"event": EVENT, "label": LABEL}


def build_file_schema(name: str) -> Any:
    """Return the schema (pyarrow) of a new file of the contract `name`, with its format in the metadata."""
    return SCHEMAS[name].with_metadata({_METADATA_KEY: json.dumps({"format": get_format_tag(name)})})


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


def convert_to_contract(name: str, table: pa.Table, where: str) -> Any:
    """Return a table with the columns of the contract `name` only, in its types.

    Raises:
        MLScaleError: it is of another contract or a later format, or lacks a column.
    """
    try:
        expect_format(name, describe_schema(table.schema), where)
        # By name: a file may have more columns, and another order.
        return table.select(SCHEMAS[name].names).cast(SCHEMAS[name])
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise MLScaleError(
            f"this file holds no {name}s",
            where=where,
            why=str(error)[:300],
            fix=f"name a folder that mlscale serve has written, or move the file out of it: mv {where} ~",
        ) from error
