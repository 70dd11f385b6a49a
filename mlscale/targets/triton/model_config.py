"""The configurations of a repository's models: of the ONNX model, and of those that take raw samples.

Write protobuf's text format, as far as Triton's `config.pbtxt` needs it; without the package protobuf.

A message is a mapping, a list a repeated field. Integers, truth values and texts are written as such, the names of an
enumeration as `EnumName`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlscale.export.engines.engine import Port
from mlscale.export.servable import MODEL, Servable
from mlscale.runs.code.code_snapshot import TRITON_CONFIG, TRITON_MARK

CONFIG, LABELS = TRITON_CONFIG, "labels.txt"
TYPES: Mapping[str, str] = {
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bool": "TYPE_BOOL",
    "string": "TYPE_STRING",
}
_KINDS = {"cpu": "KIND_CPU", "gpu": "KIND_GPU", "auto": "KIND_AUTO"}


@dataclass(frozen=True)
class ServingSettings:
    """The settings of a server's computation.

    Attributes:
        instances: copies of the model that compute at the same time, of each device.
        threads: of one copy.
        max_batch: the most samples of a batch, and of a request.
        kind: cpu, gpu, or auto.
        version: number of the version.
    """

    instances: int
    threads: int
    max_batch: int
    kind: str
    version: int


def format_config(config: Mapping[str, Any]) -> str:
    """Return the content of a model's configuration file, which states that it was exported."""
    return f"{TRITON_MARK}\n{format_message(config)}"


def build_model_config(
    name: str, servable: Servable, settings: ServingSettings, warmup: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the configuration of the ONNX model."""
    labelled = {port.name for port in servable.outputs if has_label_file(servable, port)}
    outputs = [
        describe_port(port) | ({"label_filename": LABELS} if port.name in labelled else {}) for port in servable.outputs
    ]
    return {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "default_model_filename": MODEL,
        "max_batch_size": settings.max_batch,
        "input": list(map(describe_port, servable.inputs)),
        "output": outputs,
        "instance_group": [{"count": settings.instances, "kind": EnumName(_KINDS[settings.kind])}],
        # Empty: requests that wait are joined, and none waits for others to come. A queue delay is a lone client's.
        **({"dynamic_batching": {}} if settings.max_batch > 1 else {}),
        "version_policy": {"specific": {"versions": [settings.version]}},
        # By default each copy takes a thread for every core, and copies slow each other down.
        "parameters": [
            _build_parameter("intra_op_thread_count", settings.threads),
            _build_parameter("inter_op_thread_count", 1),
        ],
        **({"model_warmup": list(warmup)} if warmup else {}),
    }


def build_python_config(
    name: str,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    settings: ServingSettings,
    warmup: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the configuration of a model in Python, which is on the CPU always."""
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": settings.max_batch,
        "input": list(inputs),
        "output": list(outputs),
        "instance_group": [{"count": settings.instances, "kind": EnumName("KIND_CPU")}],
        "version_policy": {"specific": {"versions": [settings.version]}},
        **({"model_warmup": list(warmup)} if warmup else {}),
    }


def build_ensemble_config(
    name: str,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    steps: Sequence[tuple[str, Mapping[str, str], Mapping[str, str]]],
    settings: ServingSettings,
) -> dict[str, Any]:
    """Return the configuration of an ensemble; a step has a model, and the tensors of the ensemble by its own names of
    them, inputs then outputs."""
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": settings.max_batch,
        "input": list(inputs),
        "output": list(outputs),
        "version_policy": {"specific": {"versions": [settings.version]}},
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": model,
                    "model_version": settings.version,
                    "input_map": _build_map(given),
                    "output_map": _build_map(results),
                }
                for model, given, results in steps
            ]
        },
    }


def describe_port(port: Port) -> dict[str, Any]:
    """Return the entry of a tensor; its dims lack the batch."""
    return describe_tensor(port.name, TYPES[port.dtype], port.shape[1:])


def describe_tensor(name: str, data_type: str, shape: Sequence[int]) -> dict[str, Any]:
    """Return the entry of a tensor of this shape, without the batch."""
    entry = {"name": name, "data_type": EnumName(data_type), "dims": list(shape) or [1]}
    # Triton has no empty dims: clients send a scalar as [1], which the model sees without it.
    return entry if shape else {**entry, "reshape": {"shape": []}}


def has_label_file(servable: Servable, port: Port) -> bool:
    """Return whether an output has a number for each class, which the classification extension names."""
    return bool(servable.labels) and port.dtype == "float32" and port.shape == (-1, len(servable.labels))


def _build_parameter(key: str, value: int) -> dict[str, Any]:
    return {"key": key, "value": {"string_value": str(value)}}


def _build_map(names: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in names.items()]


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class EnumName(str):
    """A name of an enumeration, which is written without quotes."""


def format_message(message: Mapping[str, Any], indent: int = 0) -> str:
    """Return a message, a field in a line."""
    return "".join(_format_field(name, value, "  " * indent, indent) for name, value in message.items())


def _format_field(name: str, value: Any, margin: str, indent: int) -> str:
    if isinstance(value, Mapping):
        inner = format_message(value, indent + 1)
        return f"{margin}{name} {{\n{inner}{margin}}}\n" if inner else f"{margin}{name} {{ }}\n"
    if isinstance(value, list | tuple):
        if any(isinstance(item, Mapping) for item in value):
            return "".join(_format_field(name, item, margin, indent) for item in value)
        return f"{margin}{name}: [{', '.join(map(_format_scalar, value))}]\n"
    return f"{margin}{name}: {_format_scalar(value)}\n"


def _format_scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | EnumName):
        return str(value)
    return '"' + "".join(_ESCAPES.get(mark, mark) for mark in str(value)) + '"'
