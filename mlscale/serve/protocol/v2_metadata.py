"""Model metadata of the V2 protocol, and Triton's configuration and statistics, which performance tools request."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mlscale.data.encoders.table_encoder import NUMBERS, TEXTS, TableEncoder
from mlscale.serve.protocol.v2 import LABEL, PROBABILITIES
from mlscale.serve.protocol.v2_inputs import DATATYPES
from mlscale.serve.served_model import ServedModel
from mlscale.task_types.task_type import MOST_LISTED_LABELS

EXTENSIONS = ["classification", "model_repository", "model_configuration", "binary_tensor_data", "statistics"]


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


def build_model_configuration(model: ServedModel) -> dict[str, Any]:
    """Return the response of `GET /v2/models/M/config`; its shapes lack the batch, as in Triton."""
    return {
        "name": model.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": model.max_batch,
        "input": [
            {
                "name": port.name,
                "data_type": _format_type(DATATYPES[port.dtype]),
                "format": "FORMAT_NONE",
                "dims": list(port.shape[1:]) or [1],
            }
            for port in model.servable.inputs
        ],
        "output": [
            # Triton's configuration does not allow empty dims: a scalar is [1].
            {"name": name, "data_type": _format_type(kind), "dims": dims or [1]}
            for name, kind, dims in _list_outputs(model)
        ],
        "instance_group": [{"name": model.name, "kind": "KIND_CPU", "count": 1, "gpus": []}],
        "default_model_filename": "model.onnx",
        "dynamic_batching": {"preferred_batch_size": [model.max_batch], "max_queue_delay_microseconds": 0},
        "parameters": {},
    }


@dataclass
class ServingStatistics:
    """The counters of one version since it serves; seconds are sums over requests.

    Attributes:
        rows, requests, failed: samples and requests that were answered, and requests that failed.
        batches: by the rows of a batch: the number of batches, and their seconds.
        total_s, compute_s, failed_s: from a request's last byte to its result; of that, in the model; failed requests.
        last: time of the last batch, seconds since 1970.
    """

    rows: int = 0
    requests: int = 0
    failed: int = 0
    batches: dict[int, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0, 0.0]))
    total_s: float = 0.0
    compute_s: float = 0.0
    failed_s: float = 0.0
    last: float = 0.0

    def count_batch(self, requests: int, rows: int, total_s: float, seconds: float) -> None:
        """Count a batch that took `seconds`; `total_s`: the time of its requests, summed."""
        self.rows += rows
        self.requests += requests
        self.total_s += total_s
        # Each request waits for its whole batch, so each counts the batch's time.
        self.compute_s += seconds * requests
        batch = self.batches[rows]
        batch[0] += 1
        batch[1] += seconds
        self.last = time.time()

    def add_failure(self, seconds: float) -> None:
        """Count a failed request."""
        self.failed += 1
        self.failed_s += seconds


def build_model_statistics(model: ServedModel, counts: ServingStatistics) -> dict[str, Any]:
    """Return the response of `GET /v2/models/M/stats`; parsing and encoding are not measured, their times are 0."""
    # The two sums come from separate clock readings, so the difference may fall below 0.
    waited = max(0.0, counts.total_s - counts.compute_s)
    nothing = _build_duration(0, 0.0)
    return {
        "name": model.name,
        "version": model.version,
        # The protocol has milliseconds here, nanoseconds below.
        "last_inference": int(1000 * counts.last),
        "inference_count": counts.rows,
        "execution_count": int(sum(count for count, _ in counts.batches.values())),
        "inference_stats": {
            "success": _build_duration(counts.requests, counts.total_s),
            "fail": _build_duration(counts.failed, counts.failed_s),
            "queue": _build_duration(counts.requests, waited),
            "compute_input": _build_duration(counts.requests, 0.0),
            "compute_infer": _build_duration(counts.requests, counts.compute_s),
            "compute_output": _build_duration(counts.requests, 0.0),
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "response_stats": {},  # of models that stream, as in Triton
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _build_duration(count, 0.0),
                "compute_infer": _build_duration(count, seconds),
                "compute_output": _build_duration(count, 0.0),
            }
            for rows, (count, seconds) in sorted(counts.batches.items())
        ],
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


def _format_type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def _build_duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": int(1e9 * seconds)}
