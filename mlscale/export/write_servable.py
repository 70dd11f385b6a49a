"""Write a servable: all files in a temporary folder, read back, then committed by one rename.

Build the content of servable.yaml, without its format and digests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from mlscale.atomic_files import (
    PRIVATE_FOLDER,
    compute_sha256,
    convert_to_json,
    iterate_regular_files,
    replace_folder,
    write_bytes,
    write_json,
    write_text,
)
from mlscale.contracts import get_format_tag
from mlscale.contracts.servable_yaml import DIGEST, compute_digest
from mlscale.data.encoders.encoder import Encoder
from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.measure_export import ExportMeasurement
from mlscale.export.servable import DOCUMENT, MODEL, PARITY, REFERENCE, Servable, load
from mlscale.export.warmup import WARMUP, write_warmup
from mlscale.export.warmup.write_warmup import INT8_TOLERANCE, TOLERANCE
from mlscale.reference.stored_reference import StoredReference
from mlscale.task_types.tensor_type import TensorType


def write_servable(
    folder: Path,
    *,
    model: bytes,
    parity: Mapping[str, Any],
    reference: StoredReference | None,
    document: Mapping[str, Any],
    warmup: Sequence[tuple[str, Any]] = (),
    replace: bool = False,
    add_files: Callable[[Servable], Mapping[str, Any]] | None = None,
) -> Servable:
    """Write the folder, completely or not at all, private to its owner; return it as a reader loads it.

    Args:
        folder: its path.
        model: the serialised ONNX model.
        parity: the content of parity.json.
        reference: the reference profile; None where there is none.
        document: servable.yaml, without its format and the digests.
        warmup: names and raw samples, which the servable answers once it is complete; none for no `warmup/`.
        replace: replace an existing servable.
        add_files: called with the servable once all else is written; it may write files into its folder, and returns
            keys for servable.yaml. Where it raises an error, nothing is written.

    Raises:
        MLScaleError: the path exists already, the folder can't be written to (exit code 5), or the written files can't
            be read.
    """
    check_free(folder, replace=replace)
    with replace_folder(folder) as aside:
        write_bytes(aside / MODEL, model)
        write_json(aside / PARITY, parity)
        if reference is not None:
            (aside / REFERENCE).mkdir(mode=PRIVATE_FOLDER)
            reference.save_profile(aside / REFERENCE)
        _write_document(aside, document)
        # A servable that can't be loaded fails here, before the rename: nothing appears at `folder`.
        servable = load(aside)
        if warmup:
            # A rounding error may move an int8 value by a whole step, which depends on the processor.
            tolerance = TOLERANCE if document["compression"] is None else INT8_TOLERANCE
            write_warmup(aside / WARMUP, servable, warmup, tolerance=tolerance)
            _write_document(aside, document)
        if add_files is not None and (keys := add_files(servable)):
            _write_document(aside, {**document, **keys})
    return load(folder)


def _write_document(folder: Path, document: Mapping[str, Any]) -> None:
    """Write servable.yaml with the digests of all other files, and of itself in its last line."""
    files = {
        path.relative_to(folder).as_posix(): {"sha256": compute_sha256(path), "bytes": path.stat().st_size}
        for path in iterate_regular_files(folder)
        # The document would have to contain its own digest.
        if path != folder / DOCUMENT
    }
    stamped = {"format": get_format_tag("servable"), **document, "files": files}
    text = yaml.dump(
        # Unsorted: people read this file, and its fields are in the order of their importance.
        convert_to_json(stamped),
        # In C where PyYAML has it, for the sake of a tokenizer's file.
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=120,
    ).removesuffix("\n")
    write_text(folder / DOCUMENT, f"{text}{DIGEST}{compute_digest(text)}\n")


def check_free(folder: Path, *, replace: bool = False) -> None:
    """Raise an error if a servable can't be written to this path, before the work is done.

    Raises:
        MLScaleError: something else is there, or a servable that is not to be replaced.
    """
    # Only a folder with a servable.yaml is replaced, so that a wrong path never deletes other data; a link never is.
    if folder.is_symlink() or (folder.exists() and not (replace and (folder / DOCUMENT).is_file())):
        raise MLScaleError(
            f"there is something at {folder.name} already",
            where=str(folder),
            why="a servable that may be in use is never written over",
            fix="to=<a new folder>",
        )


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
