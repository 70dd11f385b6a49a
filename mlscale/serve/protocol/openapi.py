"""`GET /openapi.json`: what `/predict` takes and answers for the model that is served, as OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version as package_version
from typing import Any

from mlscale.serve.protocol.image_input import KINDS
from mlscale.serve.served_model import ServedModel

_MOST_EXAMPLES = 20
_ID = {
    "description": "an id for all samples, or a list with one for each; the server makes one otherwise",
    "anyOf": [{"type": "string", "maxLength": 200}, {"type": "array", "items": {"type": "string", "maxLength": 200}}],
}
_ERRORS = {
    "400": "a sample can't be used; the reason names it",
    "413": "the request is too large",
    "415": "the model takes samples of another kind",
    "503": "too many samples wait; `Retry-After` has the seconds after which to try again",
}


def build_openapi_document(model: ServedModel, *, needs_key: bool) -> dict[str, Any]:
    """Return the document; `needs_key`: True if requests need the server's key."""
    raw = model.servable.encoder.describe_raw_input()
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": model.name,
            "version": model.version,
            "description": f"Predictions of {model.version}, served by mlscale {package_version('mlscale')}.",
        },
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": _describe_task(model),
                    "parameters": [
                        {
                            "name": "mlscale-id",
                            "in": "header",
                            "description": "an id of the request",
                            "schema": {"type": "string", "maxLength": 200},
                        }
                    ],
                    "requestBody": {"required": True, "content": _build_request_content(model, raw)},
                    "responses": _build_responses(),
                }
            }
        },
        "components": {
            "schemas": {
                "Sample": _build_sample_schema(model, raw),
                "Prediction": _build_prediction_schema(model),
                "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
            }
        },
    }
    if needs_key:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        document["security"] = [{"bearer": []}, {"key": []}]
    return document


def _describe_task(model: ServedModel) -> str:
    task_type, names = model.servable.task_type, model.servable.names
    targets = ", ".join(f"{target.name} ({target.unit})" if target.unit else target.name for target in names.targets)
    return f"Predict {targets or task_type.predicts or task_type.name}"


def _build_request_content(model: ServedModel, raw: Mapping[str, Any]) -> dict[str, Any]:
    sample = {"$ref": "#/components/schemas/Sample"}
    inputs = {"anyOf": [{"type": "array", "items": sample, "minItems": 1}, sample]}
    batch = {
        "type": "object",
        "properties": {"inputs": inputs, "id": _ID},
        "required": ["inputs"],
        "additionalProperties": False,
    }
    content: dict[str, Any] = {}
    if raw["type"] == "image":
        # An empty schema: OpenAPI 3.1 has a file as it is so.
        content = {kind.decode(): {} for kind in KINDS}
    elif raw["type"] == "text":
        content["text/plain"] = {"schema": {"type": "string"}}
    if raw["type"] in ("table", "text"):
        content["application/json"] = {"schema": {"anyOf": [sample, batch]}, **_build_example(raw)}
    else:
        content["application/json"] = {"schema": batch}
    if model.tensor is not None:
        content["application/octet-stream"] = {}
    return content


def _build_sample_schema(model: ServedModel, raw: Mapping[str, Any]) -> dict[str, Any]:
    if raw["type"] == "table":
        columns = raw["columns"]
        return {
            "type": "object",
            "description": "a row; other keys are ignored",
            "properties": {column["name"]: _build_column_schema(column) for column in columns},
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
            "type": ["string", "number", "null"],
            "description": f"a category of {len(column['categories'])}; {missing}",
            "examples": values,
        }
    unit = f" {column['unit']}" if column.get("unit") else ""
    return {
        "type": ["number", "string", "null"],
        "description": f"in training {column['minimum']:.6g} to {column['maximum']:.6g}{unit}; {missing}",
        "examples": [column["median"]],
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


def _build_example(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an example that every such model takes."""
    if raw["type"] == "text":
        return {"example": "a text"}
    return {
        "example": {
            column["name"]: column["median"] if column["type"] == "number" else next(iter(column["categories"]), None)
            for column in raw["columns"]
        }
    }


def _build_prediction_schema(model: ServedModel) -> dict[str, Any]:
    servable = model.servable
    answer = servable.task_type.describe_answer(servable.names)
    properties = {"id": {"type": "string"}, **answer.get("properties", {})}
    return {**answer, "properties": properties, "required": ["id", *answer.get("required", ())]}


def _build_responses() -> dict[str, Any]:
    predictions = {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}}
    text = {"type": "string"}
    success = {
        "type": "object",
        "properties": {"model_name": text, "model_version": text, "predictions": predictions},
        "required": ["model_name", "model_version", "predictions"],
    }
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {
            "description": "a prediction for each sample, in their order",
            "content": {"application/json": {"schema": success}},
        },
        **{status: {"description": description, "content": error} for status, description in _ERRORS.items()},
    }
