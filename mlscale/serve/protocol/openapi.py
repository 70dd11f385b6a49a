"""`GET /openapi.json`: what `/predict` and `/labels` take and answer for the model that is served, as OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import version as package_version
from typing import Any

from mlscale.serve.protocol.image_input import KINDS
from mlscale.serve.protocol.openapi_samples import ID_TEXT, IDS, build_example, build_sample_schema
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
