"""Model metadata of the V2 protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlscale.data.encoders.table_encoder import NUMBERS, TEXTS, TableEncoder
from mlscale.serve.protocol.v2 import LABEL, PROBABILITIES
from mlscale.serve.protocol.v2_inputs import DATATYPES
from mlscale.serve.served_model import ServedModel
from mlscale.task_types.task_type import MOST_LISTED_LABELS

EXTENSIONS = ["classification", "model_repository", "binary_tensor_data"]


def build_model_metadata(model: ServedModel) -> dict[str, Any]:
    """Return the response of `GET /v2/models/M`.

    Its parameters state the runtime with its execution provider, the classes, the targets with their units, and what
    each output is; of the raw sample also the columns of a table in the order of each tensor, and the name by which raw
    samples are taken as BYTES.
    """
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": [_describe_tensor(port.name, DATATYPES[port.dtype], port.shape) for port in model.servable.inputs],
        "outputs": [_describe_tensor(name, kind, [-1, *dims]) for name, kind, dims in _list_outputs(model)],
        "parameters": _build_parameters(model),
    }


def _build_parameters(model: ServedModel) -> dict[str, Any]:
    servable, encoder = model.servable, model.servable.encoder
    parameters = _build_answer_parameters(model)
    if servable.format == 1:  # whose graph begins with the model's own tensors
        return parameters
    parameters["raw_input"] = encoder.describe_raw_input()
    if isinstance(encoder, TableEncoder):
        columns = parameters["raw_input"]["columns"]
        kinds = {NUMBERS: "number", TEXTS: "category"}
        parameters["columns"] = {
            port.name: [column["name"] for column in columns if column["type"] == kinds[port.name]]
            for port in servable.inputs
        }
    if model.file_input:
        parameters["raw_tensor"] = _describe_tensor(model.file_input, "BYTES", [-1])
    return parameters


def _build_answer_parameters(model: ServedModel) -> dict[str, Any]:
    """Return the runtime, and what the outputs mean: names of the classes, units of targets, sentences on tensors."""
    # By what it is computed: measurements of a server on another provider are not comparable.
    servable, parameters = model.servable, dict[str, Any](runtime=model.runtime)
    # Metadata is built in the event loop, where a list of a million names would delay all requests.
    if 0 < len(servable.labels) <= MOST_LISTED_LABELS:
        parameters["labels"] = list(servable.labels)
    if targets := servable.names.targets:
        parameters["targets"] = [{"name": target.name, "unit": target.unit} for target in targets]
    meanings = dict(servable.task_type.output_meanings)
    if model.has_one_class:
        meanings |= {PROBABILITIES: "of the classes, in the order of the labels", LABEL: "the likeliest class"}
    names = [name for name, _, _ in _list_outputs(model)]
    # A third-party type may have outputs of which nothing is known.
    if known := {name: meanings[name] for name in names if name in meanings}:
        parameters["outputs"] = known
    return parameters


def _list_outputs(model: ServedModel) -> list[tuple[str, str, list[int]]]:
    """Return name, datatype and shape without the batch of each output."""
    outputs = model.servable.outputs
    own = [(port.name, DATATYPES[port.dtype], list(port.shape[1:])) for port in outputs]
    if not model.has_one_class:
        return own
    return [*own, (PROBABILITIES, "FP32", list(outputs[0].shape[1:])), (LABEL, "BYTES", [])]


def _describe_tensor(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}
