"""Build the content of servable.yaml, without its format and digests."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mlscale.data.encoders.encoder import Encoder
from mlscale.export.engines.engine import Port
from mlscale.export.measure_export import ExportMeasurement
from mlscale.task_types.tensor_type import TensorType

# Versions that the graph's bytes depend on, and the runtime that it was compared with.
_PACKAGES = ("mlscale", "torch", "onnx", "onnxscript", "onnxruntime")


def build_servable_document(
    measured: ExportMeasurement,
    *,
    name: str,
    run: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    data_version: str | None,
    licences: Mapping[str, str | None],
    compression: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the document, by the contract `servable`. It has no time: equal models give equal documents.

    Args:
        measured: the exported model.
        name: the model's name.
        run: its run: id, folder, config_hash.
        checkpoint: name and step.
        data_version: digest of the data it was trained on.
        licences: by part; None where unknown.
        compression: its precision and the method that gave it; None for fp32.
    """
    parity, encoder = measured.parity, measured.given.encoder
    names = measured.given.names
    return {
        "name": name,
        # Null for a task that states no type.
        "task_type": None if isinstance(measured.task_type, TensorType) else measured.task_type.name,
        "raw_input": encoder.describe_raw_input(),
        "graph_start": encoder.graph_start,
        "inputs": list(map(_describe_port, measured.inputs)),
        "outputs": list(map(_describe_port, measured.outputs)),
        "labels": list(names.labels),
        "targets": [{"name": target.name, "unit": target.unit} for target in names.targets],
        "run": dict(run),
        "checkpoint": dict(checkpoint),
        "data_version": data_version,
        "precision": compression["precision"] if compression else "fp32",
        "compression": {key: value for key, value in compression.items() if key != "precision"}
        if compression
        else None,
        # Of the exported model, not of the trained one: it is what will serve.
        "metrics": {
            **({f"val/{parity.metric}": parity.onnx_metric} if parity.metric else {}),
            "val/samples": parity.samples,
        },
        "licences": dict(licences),
        "packages": {package: version(package) for package in (*_PACKAGES, *_list_encoder_packages(encoder))},
        "encoder": encoder.to_document(),
    }


def _list_encoder_packages(encoder: Encoder) -> tuple[str, ...]:
    """Return the packages by which samples are encoded, besides numpy: other versions may read texts otherwise."""
    return ("tokenizers",) if encoder.graph_start == "tokens" else ()


def _describe_port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "dtype": port.dtype, "shape": list(port.shape)}
