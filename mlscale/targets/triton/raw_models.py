"""The models of a repository that take raw samples: an encoder in Python, the ONNX model, and what follows it, as an
ensemble.

Raw samples as the bytes that Triton reads from requests and warm-up files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import write_json, write_text
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder, convert_to_bytes
from mlscale.export.engines.engine import Port
from mlscale.export.servable import Servable
from mlscale.targets.triton.model_config import (
    CONFIG,
    TYPES,
    ServingSettings,
    build_ensemble_config,
    build_python_config,
    describe_port,
    describe_tensor,
    format_config,
)

_CODE = "mlscale.targets.triton.repository_code"
DOCUMENT = Port("document", "int64", (-1, 1))
"""The number of each window's document, which the encoder gives and the sums are taken by."""


@dataclass(frozen=True)
class RawModels:
    """The names of the models of a servable that are there beside its ONNX model.

    Attributes:
        model: the ONNX model.
        input: what the ensemble takes: image, row or text.
    """

    model: str
    input: str

    @property
    def ensemble(self) -> str:
        """The model that clients send raw samples to."""
        return f"{self.model}_raw"

    @property
    def encoder(self) -> str:
        """Its first step."""
        return f"{self.model}_encoder"

    @property
    def decoder(self) -> str:
        """Its last step, where there is one."""
        return f"{self.model}_decoder"


def find_raw_models(name: str, servable: Servable) -> RawModels | None:
    """Return the models for raw samples; None where a sample is tensors already, or merging is not known."""
    encoder, taken = servable.encoder, ""
    if isinstance(encoder, ImageEncoder):
        taken = "image"
    elif isinstance(encoder, TableEncoder):
        taken = "row"
    elif isinstance(encoder, DocumentEncoder):
        # How the windows of a third-party type are merged is its own code.
        taken = "text" if servable.task_type.name == "language" else ""
    elif isinstance(encoder, TextEncoder):
        taken = "text"
    # In format 1 the encoder is not known beyond its shape.
    return RawModels(name, taken) if taken and servable.format > 1 else None


def write_raw_models(
    raw: RawModels, servable: Servable, repository: Path, settings: ServingSettings, warmup: Sequence[Mapping[str, Any]]
) -> None:
    """Write the encoder, the ensemble, and the decoder where there is something to add.

    Args:
        raw: their names.
        servable: complete.
        repository: the folder of models.
        settings: of the ONNX model.
        warmup: requests of the encoder.
    """
    given = [describe_tensor(raw.input, TYPES["string"], (1,))]
    encoded = list(servable.inputs)
    if isinstance(servable.encoder, DocumentEncoder):
        encoded.append(DOCUMENT)
    config = build_python_config(raw.encoder, given, [_describe_plain(port) for port in encoded], settings, warmup)
    folder = _write_python_model(repository, config, "encode_model.py", settings)
    write_json(folder / "encoder.json", servable.encoder.to_document())
    write_json(folder / "settings.json", {"input": raw.input, "most_rows": settings.max_batch})
    # Of these versions: others may decode other pixels. numpy is the server's own.
    if lines := [f"{name}=={version(name)}\n" for name in _list_packages(servable.encoder)]:
        write_text(folder.parent / "requirements.txt", "".join(lines))
    steps, outputs = _build_steps(raw, servable)
    if len(steps) == 3:
        _write_decoder(raw, servable, repository, settings)
    ensemble = build_ensemble_config(raw.ensemble, given, outputs, steps, settings)
    version_folder = _write_config(repository, ensemble, settings)
    # A folder without files is lost where only files are copied, and the server wants one of the version.
    write_text(version_folder / "README", "An ensemble has no file of its own: see config.pbtxt.\n")


def _build_steps(raw: RawModels, servable: Servable) -> tuple[list[Any], list[dict[str, Any]]]:
    """Return the steps of the ensemble and its outputs."""
    names = {port.name: port.name for port in servable.inputs}
    own = {port.name: port.name for port in servable.outputs}
    outputs = [_describe_plain(port) for port in servable.outputs]
    encode = (raw.encoder, {raw.input: raw.input}, names)
    is_document = isinstance(servable.encoder, DocumentEncoder)
    if not is_document and not has_classes(servable):
        return [encode, (raw.model, names, own)], outputs
    # The last step gives all outputs. Triton leaves out a step of whose outputs none was requested, although another
    # step needs them: a request for `label` alone would never get it.
    inner = {name: _name_inner(name) for name in own}
    given = {name: name for name in inner.values()}
    if is_document:
        given[DOCUMENT.name] = DOCUMENT.name
        encode = (*encode[:2], {**names, DOCUMENT.name: DOCUMENT.name})
    else:
        outputs += _describe_classes(servable)
    results = {str(output["name"]): str(output["name"]) for output in outputs}
    return [encode, (raw.model, names, inner), (raw.decoder, given, results)], outputs


def _name_inner(output: str) -> str:
    """Return the name of an output of the graph that a further step takes."""
    return f"graph_{output}"


def has_classes(servable: Servable) -> bool:
    """Return whether each sample has one class, so that `mlscale serve` adds `probabilities` and `label`."""
    return servable.task_type.is_one_class and [port.name for port in servable.outputs] == ["logits"]


def _write_decoder(raw: RawModels, servable: Servable, repository: Path, settings: ServingSettings) -> None:
    given = [_describe_plain(replace(port, name=_name_inner(port.name))) for port in servable.outputs]
    outputs, kind = [_describe_plain(port) for port in servable.outputs], "classes"
    if isinstance(servable.encoder, DocumentEncoder):
        given.append(describe_port(DOCUMENT))
        kind = "windows"
    else:
        outputs += _describe_classes(servable)
    config = build_python_config(raw.decoder, given, outputs, settings)
    folder = _write_python_model(repository, config, "decode_model.py", settings)
    write_json(folder / "settings.json", {"kind": kind, "labels": list(servable.labels)})


def _describe_classes(servable: Servable) -> list[dict[str, Any]]:
    shape = servable.outputs[0].shape[1:]
    return [
        describe_tensor("probabilities", TYPES["float32"], shape),
        describe_tensor("label", TYPES["string"], (1,)),
    ]


def _describe_plain(port: Port) -> dict[str, Any]:
    """Return the entry of a tensor between models: a scalar is [1], without a reshape, as its clients see it."""
    return describe_tensor(port.name, TYPES[port.dtype], port.shape[1:] or (1,))


def _write_python_model(repository: Path, config: Mapping[str, Any], code: str, settings: ServingSettings) -> Path:
    """Write a model's configuration and code; return the folder of its version."""
    folder = _write_config(repository, config, settings)
    write_text(folder / "model.py", files(_CODE).joinpath(code).read_text(encoding="utf-8"))
    _write_package(folder)
    return folder


def _write_config(repository: Path, config: Mapping[str, Any], settings: ServingSettings) -> Path:
    folder = repository / str(config["name"]) / str(settings.version)
    folder.mkdir(parents=True)
    write_text(folder.parent / CONFIG, format_config(config))
    return folder


def _list_packages(encoder: Encoder) -> tuple[str, ...]:
    """Return the packages by which samples are encoded, besides numpy."""
    if isinstance(encoder, ImageEncoder):
        return "pillow", "simplejpeg"
    return ("tokenizers",) if encoder.graph_start == "tokens" else ()


def _write_package(folder: Path) -> None:
    """Write mlscale as `mlscale.zip`, which Python imports from: a repository has one file of it, not a thousand."""
    package = Path(str(files("mlscale")))
    with ZipFile(folder / "mlscale.zip", "w", ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*.py")):
            # Without the times of files: equal models give equal repositories.
            name = path.relative_to(package.parent).as_posix()
            archive.writestr(ZipInfo(name), path.read_bytes(), ZIP_DEFLATED)


def encode_raw_sample(sample: Any) -> bytes:
    """Return a raw sample as one element of a tensor of bytes: a file, a text, a row as JSON, an array as .npy."""
    if isinstance(sample, np.ndarray):
        np.save(file := io.BytesIO(), sample, allow_pickle=False)
        return file.getvalue()
    if isinstance(sample, str | bytes):
        return convert_to_bytes(sample)
    # Numbers of numpy's are no JSON.
    return json.dumps(sample, default=lambda value: value.item()).encode()


def create_raw_tensor(samples: list[Any]) -> NDArray[Any]:
    """Return raw samples as a tensor of bytes, (n, 1)."""
    tensor = np.empty((len(samples), 1), object)
    tensor[:, 0] = [encode_raw_sample(sample) for sample in samples]
    return tensor
