"""What servable.yaml says, but for its format and digests."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from mlscale.export.measure_export import Measured
from mlscale.export.onnx_export import INPUT, OUTPUT
from mlscale.export.validation_samples import Input

_COLOURS = {1: "grey", 3: "RGB"}
_PACKAGES = ("mlscale", "torch", "onnx", "onnxscript", "onnxruntime")


def document(
    measured: Measured,
    *,
    name: str,
    run: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    data_version: str | None,
    licences: Mapping[str, str | None],
    compression: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document, by the contract `servable`. It holds no time: the same model gives the same document.

    Args:
        measured: the exported model.
        name: what the model is called.
        run: where it is from: id, folder, config_hash.
        checkpoint: name and step.
        data_version: digest of the data it was trained on.
        licences: by part; None where nobody has said.
        compression: its precision and how it came to it; None for fp32.
    """
    given, parity = measured.given, measured.parity
    return {
        "name": name,
        "inputs": [{"name": INPUT, "dtype": given.dtype, "shape": [-1, *given.shape]}],
        "outputs": [{"name": OUTPUT, "dtype": "float32", "shape": [-1, measured.classes]}],
        "labels": list(given.labels or map(str, range(measured.classes))),
        "preprocessing": _preprocessing(given),
        "postprocessing": {"probabilities": "softmax", "label": "argmax"},
        "run": dict(run),
        "checkpoint": dict(checkpoint),
        "data_version": data_version,
        "precision": compression["precision"] if compression else "fp32",
        "compression": {key: value for key, value in compression.items() if key != "precision"}
        if compression
        else None,
        "metrics": {"val/accuracy": parity.onnx_accuracy, "val/samples": parity.samples},
        "licences": dict(licences),
        "packages": {package: version(package) for package in _PACKAGES},
    }


def _preprocessing(given: Input) -> dict[str, Any]:
    """What a client does (bring an image to size), and what the graph does by itself (normalise)."""
    image = len(given.shape) == 3
    return {
        "layout": "NCHW" if image else None,
        "channels": _COLOURS.get(given.shape[0]) if image else None,
        "resize": {"short_side": given.image_size, "crop": "centre"} if given.image_size else None,
        **({"decode_version": given.decode_version} if given.decode_version else {}),
        **({"max_pixels": given.max_pixels} if given.max_pixels else {}),
        "normalised_in_graph": bool(given.mean),
        "mean": list(given.mean),
        "std": list(given.std),
    }
