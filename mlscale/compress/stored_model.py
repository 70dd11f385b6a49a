"""The folder of a compressed model in its run: `model.onnx`, and `compressed.json` with its origin and metrics.

A model in int8 with its measurements.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlscale.atomic_files import read_json, replace_folder, write_bytes, write_json
from mlscale.compress.int8_verdict import Int8Bounds, Int8Metrics
from mlscale.compress.quantize import METHODS, SPLIT, Method
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError, describe_wrong_content
from mlscale.runs.amend import update_manifest
from mlscale.runs.checkpoint_files.checkpoint_digest import read_checkpoint_metadata, read_content_digest

FOLDER, MODEL, DOCUMENT = "compressed", "model.onnx", "compressed.json"
_PACKAGES = ("mlscale", "torch", "onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class StoredInt8Model:
    """A compressed model that was kept for a checkpoint; its digest is verified.

    Attributes:
        model: serialised ONNX.
        max_metric_drop: the bound that it was kept under, in the unit of the task's metric.
        min_agreement: the bound that it was kept under.
        about: the entry for a servable's document.
    """

    model: bytes
    max_metric_drop: float
    min_agreement: float
    about: Mapping[str, Any]

    @property
    def precision(self) -> str:
        return str(self.about["precision"])


def write_compressed_model(folder: Path, compressed: CompressedModel, *, name: str, checkpoint: Path) -> None:
    """Write the folder, completely or not at all, replacing the previous one; a manifest that lists it is updated.

    Args:
        folder: `<run>/compressed`.
        compressed: kept or not.
        name: the model's name.
        checkpoint: the file it was made from.

    Raises:
        MLScaleError: it can't be written (exit code 5).
    """
    # The record may be absent, and then the digest alone identifies the checkpoint.
    record = read_checkpoint_metadata(checkpoint).record
    with replace_folder(folder) as aside:
        write_bytes(aside / MODEL, compressed.model)
        document = {
            "format": get_format_tag("compressed"),
            "name": name,
            "precision": "int8",
            "method": compressed.method,
            "description": METHODS[compressed.method],
            "reduced_range": compressed.reduced_range,
            "kept": compressed.is_kept,
            "problems": list(compressed.problems),
            "bounds": asdict(compressed.bounds),
            "calibration": {"split": SPLIT, "samples": compressed.calibrated} if compressed.calibrated else None,
            # By digest: best.ckpt may be another one when it is exported.
            "checkpoint": {
                "name": checkpoint.name,
                "step": record.step if record else None,
                "sha256": read_content_digest(checkpoint),
            },
            "figures": compressed.metrics.build_document(),
            "packages": {package: version(package) for package in _PACKAGES},
            "files": {MODEL: {"sha256": hashlib.sha256(compressed.model).hexdigest(), "bytes": len(compressed.model)}},
        }
        write_json(aside / DOCUMENT, document)
    update_manifest(folder.parent, folder.name)


def find_compressed_model(run: Path, checkpoint: Path) -> tuple[StoredInt8Model | None, str]:
    """Return the compressed model of `checkpoint`, if one was kept; else None and the reason.

    Raises:
        MLScaleError: it is corrupt, altered, or of a later format.
    """
    folder = run / FOLDER
    path = folder / DOCUMENT
    if not path.is_file():
        return None, "the run has none"
    document = read_json(path)
    expect_format("compressed", document, str(path))
    try:
        # By content and not by name: later training replaces best.ckpt under the same name.
        if document["checkpoint"]["sha256"] != read_content_digest(checkpoint):
            return None, f"the run's is of another checkpoint than {checkpoint.name}"
        # A model that was not kept is stored, too, with its measurements.
        if document["kept"] is not True:
            return None, f"it was not kept: {'; '.join(map(str, document['problems']))}"
        # The bytes that are verified are those that are returned: the file is not read twice.
        content = (folder / MODEL).read_bytes()
        if hashlib.sha256(content).hexdigest() != document["files"][MODEL]["sha256"]:
            raise ValueError("the SHA-256 of its model is another")
        about = {name: document[name] for name in ("precision", "method", "description", "reduced_range")}
        about["calibration"] = document["calibration"]
        min_agreement = float(document["bounds"]["min_agreement"])
        stored_model = StoredInt8Model(content, _read_max_drop(document), min_agreement, about)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise MLScaleError(
            "the compressed model is corrupt or altered",
            where=str(path),
            why=describe_wrong_content(error),
            fix="mlscale compress <run> compress=int8, which makes it again\ncompressed=false, which exports fp32",
        ) from error
    return stored_model, ""


def _read_max_drop(document: Mapping[str, Any]) -> float:
    """Return how much worse the metric may get; documents without one are of accuracy."""
    bounds, metric = document["bounds"], document["figures"].get("metric")
    if metric is None or not metric["is_relative"]:
        return float(bounds["max_accuracy_drop"])
    # An export compares the metric itself, in its own unit.
    return float(bounds["max_relative_drop"]) * abs(float(metric["fp32"]))


@dataclass(frozen=True)
class CompressedModel:
    """A model in int8 with its measurements.

    Attributes:
        model: serialised ONNX, encoded samples to the task's outputs as in fp32.
        method: static or dynamic.
        calibrated: number of training samples that the ranges of activations are from; 0 for dynamic.
        reduced_range: true if weights have 7 bits, because this machine's products would overflow.
        metrics: the metrics compared with fp32.
        bounds: the bounds to meet.
        problems: each bound that is not met, in words.
    """

    model: bytes
    method: Method
    calibrated: int
    reduced_range: bool
    metrics: Int8Metrics
    bounds: Int8Bounds
    problems: tuple[str, ...]

    @property
    def is_kept(self) -> bool:
        return not self.problems
