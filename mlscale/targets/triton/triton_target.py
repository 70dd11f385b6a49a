"""The target of Triton Inference Server: a folder of models, for tensors and for raw samples."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import write_bytes, write_text
from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Engine
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.servable import MODEL, Servable
from mlscale.export.warmup import WARMUP, WarmupRequest, read_warmup
from mlscale.runs.host.machine import count_usable_cores
from mlscale.serve.protocol.v2_codec import encode_tensor
from mlscale.targets.target import Target, TargetServer
from mlscale.targets.triton.model_config import (
    CONFIG,
    LABELS,
    TYPES,
    EnumName,
    ServingSettings,
    build_model_config,
    format_config,
    has_label_file,
)
from mlscale.targets.triton.raw_models import create_raw_tensor, find_raw_models, write_raw_models
from mlscale.targets.triton.running_server import (
    RunningTriton,
    build_container_words,
    find_server_command,
    link_repository,
    run_triton,
)
from mlscale.targets.v2_client import V2Client

_MOST_INSTANCES = 8
"""Of the default: each holds the model in memory."""
_NOT_IN_NAMES = re.compile(r"[^\w.-]+", re.ASCII)
_DYNAMIC_SCALES = b"DynamicQuantizeLinear"
IMAGE = "nvcr.io/nvidia/tritonserver:24.12-py3"


class TritonTarget(Target):
    """A model repository: `<name>` takes tensors, `<name>_raw` files, rows and texts.

    Args:
        instances: copies of the model that compute at the same time; None for as many as this machine's cores allow, 8
            at most; on a GPU one.
        threads: of one copy.
        max_batch: the most samples that are computed at once, and that a request may have.
        kind: where it computes: cpu, gpu, or what the server finds.
        version: its number, the name of the folder.
        image: the container image of the server.
        server: the folder of a server without a container; None for none.
    """

    name: ClassVar[str] = "triton"

    def __init__(
        self,
        instances: int | None = None,
        threads: int = 1,
        max_batch: int = 64,
        kind: Literal["cpu", "gpu", "auto"] = "cpu",
        version: int = 1,
        image: str = IMAGE,
        server: str | None = None,
    ) -> None:
        if instances is None:
            instances = max(1, min(count_usable_cores() // threads, _MOST_INSTANCES)) if kind == "cpu" else 1
        self._settings = ServingSettings(instances, threads, max_batch, kind, version)
        self._image, self._server = image, server

    def build(self, servable: Servable, folder: Path) -> None:
        """Write the model with its labels and warm-up requests, and the models for raw samples.

        Raises:
            MLScaleError: the server can't have a model of this name, or its labels.
        """
        name = get_model_name(servable)
        content = (servable.folder / MODEL).read_bytes()
        settings = self._choose_settings(content)
        model = folder / name
        version = model / str(settings.version)
        version.mkdir(parents=True)
        write_bytes(version / MODEL, content)
        if any(has_label_file(servable, port) for port in servable.outputs):
            write_text(model / LABELS, _format_labels(servable))
        warmup = write_tensor_warmup(servable, model, settings.max_batch)
        write_text(model / CONFIG, format_config(build_model_config(name, servable, settings, warmup)))
        if (raw := find_raw_models(name, servable)) is not None:
            requests = write_raw_warmup(servable, folder / raw.encoder, raw.input)
            write_raw_models(raw, servable, folder, settings, requests)

    def open_engine(self, servable: Servable, folder: Path) -> Engine:
        """Return ONNX Runtime with the repository's model, checked against the ports that are in its configuration."""
        model = folder / get_model_name(servable)
        engine = OnnxEngine((model / str(self._settings.version) / MODEL).read_bytes(), where=str(model))
        engine.check_ports(servable.inputs, servable.outputs)
        return engine

    def format_start_command(self, folder: Path) -> str:
        """Return the command that starts a container with the repository."""
        publish = ["-p", "8000:8000", "-p", "8001:8001"]
        return shlex.join(build_container_words(self._image, folder.absolute(), "docker", publish, ""))

    def check_server_installed(self) -> None:
        """Raise an error if there is neither a binary, an installed server, nor a pulled image."""
        find_server_command(Path.cwd(), image=self._image, server=self._server)

    @contextmanager
    def start_server(self, servable: Servable, folder: Path) -> Iterator[TargetServer]:
        """Start `tritonserver` of PATH, the installed server, or the container image where it was pulled."""
        model = get_model_name(servable)
        raw = find_raw_models(model, servable)
        max_batch = self._choose_settings((servable.folder / MODEL).read_bytes()).max_batch
        try:
            with (
                link_repository(folder) as path,
                run_triton(find_server_command(path, image=self._image, server=self._server)) as command,
            ):
                client = V2Client(command.url, raw.ensemble if raw else model)
                yield RunningTriton(client.read_product() + command.note, servable, raw, client, max_batch)
        finally:
            # The models in Python have left byte code in the servable, whose document does not list it.
            for cache in list(folder.rglob("__pycache__")):
                shutil.rmtree(cache, ignore_errors=True)

    def _choose_settings(self, content: bytes) -> ServingSettings:
        settings = self._settings
        # Its scales are those of a whole batch: joined by the server, the answer to a sample would depend on others.
        if _DYNAMIC_SCALES in content:
            return ServingSettings(settings.instances, settings.threads, 1, settings.kind, settings.version)
        return settings


def get_model_name(servable: Servable) -> str:
    """Return the name of the model in the server: the run's, with _ for what can't be in a folder and an address."""
    return _NOT_IN_NAMES.sub("_", str(servable.document["name"])).strip("._-") or "model"


def _format_labels(servable: Servable) -> str:
    """Return a line for each class.

    Raises:
        MLScaleError: a name has a line break.
    """
    for label in servable.labels:
        if label.splitlines() != [label]:
            raise MLScaleError(
                f"the class {label!r} can't be in {LABELS}",
                where="target.triton",
                why="the server reads a name from each line, and this one has none, or several",
                fix="rename the class in the data, and train again",
            )
    return "".join(f"{label}\n" for label in servable.labels)


def write_tensor_warmup(servable: Servable, folder: Path, largest: int) -> list[dict[str, Any]]:
    """Write the tensors of each recorded request; return the entries of the configuration.

    Args:
        servable: with its recorded requests, or without.
        folder: of the model.
        largest: samples of one more request, which takes the memory of a full batch before the first client's.
    """
    entries = []
    for number, request in _iterate_answered(servable):
        tensors = {name: rows[:1] for name, rows in servable.pack_samples([request.sample]).tensors.items()}
        types = {port.name: TYPES[port.dtype] for port in servable.inputs}
        entries.append(_write_request(f"request {number}", 1, tensors, types, folder, number))
    if entries and largest > 1:
        # The server repeats the data of a request for each sample of its batch.
        entries.append({**entries[0], "name": "a full batch", "batch_size": largest})
    return entries


def write_raw_warmup(servable: Servable, folder: Path, name: str) -> list[dict[str, Any]]:
    """Write the raw sample of each recorded request, for the model that encodes them; return the entries."""
    return [
        _write_request(
            f"request {number}", 1, {name: create_raw_tensor([request.sample])}, {name: TYPES["string"]}, folder, number
        )
        for number, request in _iterate_answered(servable)
    ]


def _iterate_answered(servable: Servable) -> Iterator[tuple[int, WarmupRequest]]:
    warmup = read_warmup(servable.folder / WARMUP)
    # One that is refused would keep the server from loading the model.
    answered = [request for request in warmup.requests if request.answer is not None] if warmup else []
    yield from enumerate(answered)


def _write_request(
    name: str, rows: int, tensors: Mapping[str, NDArray[Any]], types: Mapping[str, str], folder: Path, number: int
) -> dict[str, Any]:
    inputs = []
    for at, (tensor, values) in enumerate(tensors.items()):
        # Numbered: a tensor may have a name that no file can have.
        file = f"{number}_{at}"
        (folder / WARMUP).mkdir(exist_ok=True, parents=True)
        write_bytes(folder / WARMUP / file, encode_tensor(np.asarray(values)))
        dims = list(values.shape[1:]) or [1]
        value = {"data_type": EnumName(types[tensor]), "dims": dims, "input_data_file": file}
        inputs.append({"key": tensor, "value": value})
    return {"name": name, "batch_size": rows, "inputs": inputs}
