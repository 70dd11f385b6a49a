"""The JSON schemas of samples, of ids and of examples, for `GET /openapi.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlscale.serve.protocol.raw_json import ID
from mlscale.serve.protocol.v2 import MAX_ID
from mlscale.serve.served_model import ServedModel

_MOST_EXAMPLES = 20
ID_TEXT = {"type": "string", "maxLength": MAX_ID}
IDS = {
    "description": "an id for all samples, or a list with one for each; the server makes one otherwise",
    "anyOf": [ID_TEXT, {"type": "array", "items": ID_TEXT}, {"type": "null"}],
}
"""The ids of a request with several samples."""
_ROW_ID = {
    "description": "the row's id, by which its label is sent later; the server makes one otherwise",
    "anyOf": [ID_TEXT, {"type": ["integer", "null"]}],
}


def build_sample_schema(model: ServedModel, raw: Mapping[str, Any]) -> dict[str, Any]:
    if raw["type"] == "table":
        columns = raw["columns"]
        return {
            "type": "object",
            "description": "a row; other keys are ignored",
            # A column of this name has no id next to it.
            "properties": {ID: _ROW_ID} | {column["name"]: _build_column_schema(column) for column in columns},
            "required": [column["name"] for column in columns],
        }
    if raw["type"] == "text":
        most = raw["max_bytes"]
        cut = f"; what follows the first {most} bytes of UTF-8 is cut off" if most else ""
        return {"type": "string", "minLength": 1, "description": f"a text{cut}"}
    ports = model.servable.inputs
    if len(ports) == 1:
        return _build_tensor_schema(ports[0].shape[1:], ports[0].dtype)
    return {
        "type": "object",
        "properties": {port.name: _build_tensor_schema(port.shape[1:], port.dtype) for port in ports},
        "required": [port.name for port in ports],
    }


def _build_column_schema(column: Mapping[str, Any]) -> dict[str, Any]:
    missing = "null for a missing value" + ("" if column["may_be_missing"] else ", which was never so in training")
    if column["type"] == "category":
        values = column["categories"][:_MOST_EXAMPLES]
        return {
            "type": ["string", "number", "boolean", "null"],
            "description": f"a category of {len(column['categories'])}; {missing}",
            "examples": values,
        }
    unit = f" {column['unit']}" if column.get("unit") else ""
    return {
        "type": ["number", "string", "boolean", "null"],
        "description": f"in training {column['minimum']:.6g} to {column['maximum']:.6g}{unit}; {missing}",
        "examples": [_round_median(column)],
        **({"x-unit": column["unit"]} if unit else {}),
    }


def _build_tensor_schema(shape: Sequence[int], dtype: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer" if dtype.startswith(("int", "uint")) else "number"}
    if dtype == "bool":
        schema = {"type": ["boolean", "integer"]}
    if dtype == "uint8":
        schema |= {"minimum": 0, "maximum": 255}
    for size in reversed(shape):
        schema = {"type": "array", "items": schema, **({"minItems": size, "maxItems": size} if size >= 0 else {})}
    return {**schema, "description": f"{dtype} of {list(shape)}"}


def build_example(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an example that every such model takes."""
    if raw["type"] == "text":
        return {"example": "a text"}
    return {
        "example": {
            column["name"]: _round_median(column)
            if column["type"] == "number"
            else next(iter(column["categories"]), None)
            for column in raw["columns"]
        }
    }


def _round_median(column: Mapping[str, Any]) -> float:
    # Of an even number of rows it is a mean, which may end in a rounding error: 99.94999999999999.
    return float(f"{column['median']:.12g}")
