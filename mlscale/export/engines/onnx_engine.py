"""Run an ONNX model by ONNX Runtime, set up for a server: one thread per worker, no log on stderr, model in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.engines.execution_provider import (
    CPU,
    PROVIDERS,
    RECORD_NODES,
    check_available,
    check_session,
)
from mlscale.export.required_extras import require_extra

_TYPES = {
    "uint8": "tensor(uint8)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "bool": "tensor(bool)",
    "string": "tensor(string)",
}
PORT_DTYPES = tuple(_TYPES)
_DTYPES = {kind: name for name, kind in _TYPES.items()}
_NOTHING = 4  # severity 'fatal': everything below it is not logged


def import_onnx_runtime() -> Any:
    """Return the package onnxruntime, with telemetry and warnings switched off.

    Raises:
        MLScaleError: it is not installed (exit code 5).
    """
    require_extra("serve", "onnxruntime")
    # From 1.32 on it sends telemetry and saves a device id in the home folder. The variable is read at import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.set_default_logger_severity(_NOTHING)
    return onnxruntime


class OnnxEngine:
    """A session of an ONNX model.

    Args:
        model: the serialised ONNX model; from memory, so that the verified bytes are those that run, and no other file
            in its folder is opened.
        threads: number of threads that compute one batch.
        where: the location that errors name.
        provider: cpu, cuda or tensorrt, which the session runs on or is refused.
        min_provider_share: the smallest share of the graph's nodes that must run on it.

    Raises:
        MLScaleError: onnxruntime is not installed, or does not run on the provider (exit code 5); or it can't run this
            model.
    """

    def __init__(
        self,
        model: bytes,
        *,
        threads: int = 1,
        where: str = "model.onnx",
        provider: str = CPU,
        min_provider_share: float = 0.0,
    ) -> None:
        onnxruntime = import_onnx_runtime()
        check_available(provider, onnxruntime.get_available_providers(), onnxruntime.__version__)
        options = onnxruntime.SessionOptions()
        # By default a session takes all cores; several workers would then slow each other down.
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _NOTHING
        if provider != CPU:
            options.add_session_config_entry(RECORD_NODES, "1")
        self._where = where
        self._is_scaled_by_batch = is_scaled_by_batch(model)
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=list(PROVIDERS[provider].chain))
        except Exception as error:  # onnxruntime's errors share no base
            raise self._build_engine_error(" ".join(str(error).split())) from error
        nodes = "CPU" if provider == CPU else check_session(provider, self._session, min_provider_share)
        self.description = f"ONNX Runtime {onnxruntime.__version__} on {nodes}"
        self.inputs = tuple(map(self._read_port, self._session.get_inputs()))
        self.outputs = tuple(map(self._read_port, self._session.get_outputs()))
        self._names = [port.name for port in self.outputs]

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Return the first output for a batch (n, …) of the first input, of a model with one of each."""
        return self.compute({self.inputs[0].name: batch})[self._names[0]]

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs for a batch, (n, …) each; of no rows for an empty batch.

        Args:
            tensors: the inputs by name, (n, …) each.

        Raises:
            MLScaleError: the graph fails for this batch, or an output has another number of rows.
        """
        return compute_rows(
            self._run, tensors, self.outputs, one_by_one=self._is_scaled_by_batch, fail=self._build_engine_error
        )

    def _run(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            outputs: list[NDArray[Any]] = self._session.run(self._names, dict(tensors))
        except Exception as error:
            raise self._build_engine_error(" ".join(str(error).split())) from error
        return dict(zip(self._names, outputs, strict=True))

    def check_ports(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        """Raise an error if the graph's inputs or outputs differ from its document.

        Raises:
            MLScaleError: they differ.
        """
        if self.inputs != tuple(inputs) or self.outputs != tuple(outputs):
            raise self._build_engine_error(f"it does not match its document: {[*self.inputs, *self.outputs]}")

    def _read_port(self, node: Any) -> Port:
        # A size that is not fixed has a name in the graph, and is -1 in a document; the first is that of the batch.
        shape = (-1, *(size if isinstance(size, int) else -1 for size in node.shape[1:]))
        if node.type not in _DTYPES or not node.shape:
            raise self._build_engine_error(f"{node.name} is {node.type} {node.shape}")
        return Port(node.name, _DTYPES[node.type], shape)

    def _build_engine_error(self, why: str) -> MLScaleError:
        return MLScaleError(
            "the ONNX model can't be used",
            where=self._where,
            why=why[:300],
            fix="mlscale export <its run>, which makes it again\npip install -U onnxruntime, if that is too old",
        )


_DYNAMIC_SCALES = b"DynamicQuantizeLinear"
Tensors = Mapping[str, NDArray[Any]]


def is_scaled_by_batch(model: bytes) -> bool:
    """Return whether an ONNX model has scales that are those of all rows at once, as dynamic int8 has."""
    # The name of its operator, as the bytes of a node have it: reading the graph would take the package onnx.
    return _DYNAMIC_SCALES in model


def compute_rows(
    run: Callable[[Tensors], dict[str, NDArray[Any]]],
    tensors: Tensors,
    outputs: Sequence[Port],
    *,
    one_by_one: bool,
    fail: Callable[[str], Exception],
) -> dict[str, NDArray[Any]]:
    """Return the outputs for a batch, (n, …) each; of no rows for an empty batch.

    Args:
        run: computes a batch that is not empty.
        tensors: the inputs by name, (n, …) each.
        outputs: of the graph.
        one_by_one: compute each row alone: together, the outputs of a row would depend on the others.
        fail: returns the error to raise, of a reason.
    """
    rows = len(next(iter(tensors.values())))
    # A graph need not accept a batch of size 0.
    if not rows:
        return {port.name: np.zeros((0, *(max(size, 0) for size in port.shape[1:])), port.dtype) for port in outputs}
    if one_by_one and rows > 1:
        parts = [run({name: x[row : row + 1] for name, x in tensors.items()}) for row in range(rows)]
        return {port.name: np.concatenate([part[port.name] for part in parts]) for port in outputs}
    computed = run(tensors)
    # A batch size that is built into a reshape changes the number of rows without an error.
    for output in computed.values():
        if len(output) != rows:
            raise fail(f"it gives {len(output)} rows for {rows} samples")
    return computed
