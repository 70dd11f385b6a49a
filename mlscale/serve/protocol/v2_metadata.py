"""Model metadata of the V2 protocol, and Triton's configuration and statistics, which performance tools request."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from mlscale.serve.protocol.v2 import DATATYPES, LABEL, PROBABILITIES
from mlscale.serve.served_model import ServedModel

EXTENSIONS = ["classification", "model_repository", "model_configuration", "binary_tensor_data", "statistics"]


def build_model_metadata(model: ServedModel) -> dict[str, Any]:
    """Return the response of `GET /v2/models/M`."""
    given, outputs = model.servable.input, _list_outputs(model)
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": given.name, "datatype": DATATYPES[given.dtype], "shape": list(given.shape)}],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1, *dims]} for name, kind, dims in outputs],
    }


def build_model_configuration(model: ServedModel) -> dict[str, Any]:
    """Return the response of `GET /v2/models/M/config`; its shapes lack the batch, as in Triton."""
    given = model.servable.input
    data_type = f"TYPE_{DATATYPES[given.dtype]}"
    return {
        "name": model.name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": model.max_batch,
        "input": [{"name": given.name, "data_type": data_type, "format": "FORMAT_NONE", "dims": list(given.shape[1:])}],
        "output": [
            {"name": name, "data_type": "TYPE_STRING" if kind == "BYTES" else f"TYPE_{kind}", "dims": dims or [1]}
            # Triton's configuration does not allow empty dims: a scalar is [1].
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


def _list_outputs(model: ServedModel) -> list[tuple[str, str, list[int]]]:
    """Return name, datatype and shape without the batch of each output."""
    gives = model.servable.output
    dims = list(gives.shape[1:])
    return [(gives.name, "FP32", dims), (PROBABILITIES, "FP32", dims), (LABEL, "BYTES", [])]


def _build_duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": int(1e9 * seconds)}
