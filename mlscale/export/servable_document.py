"""Build the content of servable.yaml, without its format and digests."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mlscale.export.measure_export import ExportMeasurement
from mlscale.export.onnx_export import INPUT, OUTPUT
from mlscale.export.validation_samples import SampleFormat

_COLOURS = {1: "grey", 3: "RGB"}
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
    given, parity = measured.given, measured.parity
    return {
        "name": name,
        "inputs": [{"name": INPUT, "dtype": given.dtype, "shape": [-1, *given.shape]}],
        "outputs": [{"name": OUTPUT, "dtype": "float32", "shape": [-1, measured.classes]}],
        "labels": list(given.labels or map(str, range(measured.classes))),
        "preprocessing": _describe_preprocessing(given),
        "postprocessing": {"probabilities": "softmax", "label": "argmax"},
        "run": dict(run),
        "checkpoint": dict(checkpoint),
        "data_version": data_version,
        "precision": compression["precision"] if compression else "fp32",
        "compression": {key: value for key, value in compression.items() if key != "precision"}
        if compression
        else None,
        # Of the exported model, not of the trained one: it is what will serve.
        "metrics": {"val/accuracy": parity.onnx_accuracy, "val/samples": parity.samples},
        "licences": dict(licences),
        "packages": {package: version(package) for package in _PACKAGES},
    }


def _describe_preprocessing(given: SampleFormat) -> dict[str, Any]:
    """Return the steps of the client (resize an image) and those of the graph (normalise)."""
    # Three dimensions are an image: channels, height, width.
    image = len(given.shape) == 3
    return {
        "layout": "NCHW" if image else None,
        "channels": _COLOURS.get(given.shape[0]) if image else None,
        "resize": {"short_side": given.image_size, "crop": "centre"} if given.image_size else None,
        # Keys that are optional in the contract are left out, not null, where images are not decoded.
        **({"decode_version": given.decode_version} if given.decode_version else {}),
        **({"max_pixels": given.max_pixels} if given.max_pixels else {}),
        "normalised_in_graph": bool(given.mean),
        "mean": list(given.mean),
        "std": list(given.std),
    }
