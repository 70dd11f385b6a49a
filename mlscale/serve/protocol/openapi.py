"""`GET /openapi.json`: what `/predict` and `/labels` take and answer for the model that is served, as OpenAPI 3.1.

The JSON schemas of samples, of ids and of examples, for `GET /openapi.json`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version as package_version
from typing import Any

from mlscale.serve.protocol.image_input import KINDS
from mlscale.serve.protocol.raw_json import ID
from mlscale.serve.protocol.v2 import MAX_ID
from mlscale.serve.served_model import ServedModel

_ERRORS = {
    "400": "what was sent can't be used; the reason names it",
    "401": "the key of the server is missing, or another one",
    "403": "sent by a web page of another site, or to a name that is not the server's",
    "408": "the request did not arrive in time",
    "413": "the request is too large",
    "415": "it is of another content type than those that are taken",
    "429": "the address has sent as many labels as it may in an hour; `Retry-After` has the seconds until it may again",
    "431": "the headers are too large",
    "500": "the server or its model has failed",
    "501": "the body has another transfer encoding than chunked",
    "503": "the server has too much to do; `Retry-After` has the seconds after which to try again",
}


def build_openapi_document(model: ServedModel, *, needs_key: bool, takes_labels: bool) -> dict[str, Any]:
    """Return the document.

    Args:
        model: that is served.
        needs_key: requests need the server's key.
        takes_labels: the server records events, which labels belong to.
    """
    raw = model.servable.encoder.describe_raw_input()
    schemas = {
        "Sample": build_sample_schema(model, raw),
        "Prediction": _build_prediction_schema(model),
        "Error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]},
    }
    paths = {"/predict": {"post": _describe_predict_route(model, raw, needs_key)}}
    if takes_labels:
        schemas["Label"] = _build_label_schema(model)
        paths["/labels"] = {"post": _describe_labels_route(needs_key)}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": model.name,
            "version": model.version,
            "description": f"Predictions of {model.version}, served by mlscale {package_version('mlscale')}.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if needs_key:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        document["security"] = [{"bearer": []}, {"key": []}]
    return document


def _describe_predict_route(model: ServedModel, raw: Mapping[str, Any], needs_key: bool) -> dict[str, Any]:
    id_header = {
        "name": "mlscale-id",
        "in": "header",
        "description": "an id of the request, UTF-8",
        "schema": ID_TEXT,
    }
    text = {"type": "string"}
    predictions = {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}}
    answer = {
        "type": "object",
        "properties": {"model_name": text, "model_version": text, "predictions": predictions},
        "required": ["model_name", "model_version", "predictions"],
    }
    return {
        "operationId": "predict",
        "summary": _describe_task(model),
        "parameters": [id_header],
        "requestBody": {"required": True, "content": _build_request_content(model, raw)},
        "responses": _build_responses("a prediction for each sample, in their order", answer, needs_key, {"429"}),
    }


def _describe_labels_route(needs_key: bool) -> dict[str, Any]:
    label = {"$ref": "#/components/schemas/Label"}
    schema = {"anyOf": [label, {"type": "array", "items": label, "minItems": 1}]}
    answer = {"type": "object", "properties": {"accepted": {"type": "integer"}}, "required": ["accepted"]}
    return {
        "operationId": "label",
        "summary": "Send what was right, by the ids of predictions",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _build_responses("the labels are on the disk", answer, needs_key, set()),
    }


def _describe_task(model: ServedModel) -> str:
    task_type, names = model.servable.task_type, model.servable.names
    targets = ", ".join(f"{target.name} ({target.unit})" if target.unit else target.name for target in names.targets)
    return f"Predict {targets or task_type.predicts or task_type.name}"


def _build_request_content(model: ServedModel, raw: Mapping[str, Any]) -> dict[str, Any]:
    sample = {"$ref": "#/components/schemas/Sample"}
    inputs = {"anyOf": [{"type": "array", "items": sample, "minItems": 1}, sample]}
    batch = {
        "type": "object",
        "properties": {"inputs": inputs, "id": IDS},
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
        content["application/json"] = {"schema": {"anyOf": [sample, batch]}, **build_example(raw)}
    else:
        content["application/json"] = {"schema": batch}
    if model.tensor is not None:
        content["application/octet-stream"] = {}
    return content


def _build_prediction_schema(model: ServedModel) -> dict[str, Any]:
    servable = model.servable
    answer = servable.task_type.describe_answer(servable.names)
    properties = {"id": {"type": "string"}, **answer.get("properties", {})}
    return {**answer, "properties": properties, "required": ["id", *answer.get("required", ())]}


def _build_label_schema(model: ServedModel) -> dict[str, Any]:
    servable = model.servable
    return {
        "type": "object",
        "properties": {
            "id": {**ID_TEXT, "minLength": 1, "description": "of the prediction"},
            "label": servable.task_type.describe_label(servable.names),
        },
        "required": ["id", "label"],
    }


def _build_responses(
    success: str, answer: Mapping[str, Any], needs_key: bool, other_routes: Collection[str]
) -> dict[str, Any]:
    """Return the responses of a route; `other_routes`: statuses that only others have."""
    absent = {*other_routes, *(() if needs_key else ("401",))}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "200": {"description": success, "content": {"application/json": {"schema": answer}}},
        **{
            status: {"description": description, "content": error}
            for status, description in _ERRORS.items()
            if status not in absent
        },
    }


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
