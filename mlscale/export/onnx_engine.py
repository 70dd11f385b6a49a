"""Run an ONNX model by ONNX Runtime, set up for a server: one thread per worker, no log on stderr, model in memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.required_extras import require_extra

_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)", "int64": "tensor(int64)"}
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
    """A session of an ONNX model with one input and one output.

    Args:
        model: the serialised ONNX model; from memory, so that the verified bytes are those that run, and no other file
            in its folder is opened.
        threads: number of threads that compute one batch.
        where: the location that errors name.

    Raises:
        MLScaleError: onnxruntime is not installed (exit code 5), or it can't run this model.
    """

    def __init__(self, model: bytes, *, threads: int = 1, where: str = "model.onnx") -> None:
        onnxruntime = import_onnx_runtime()
        options = onnxruntime.SessionOptions()
        # By default a session takes all cores; several workers would then slow each other down.
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _NOTHING
        self._where = where
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base
            raise self._build_engine_error(" ".join(str(error).split())) from error
        if (counts := (len(self._session.get_inputs()), len(self._session.get_outputs()))) != (1, 1):
            raise self._build_engine_error(f"it has {counts[0]} inputs and {counts[1]} outputs, not one of each")
        self._input, self._output = self._session.get_inputs()[0], self._session.get_outputs()[0]

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Return the output for a batch, (n, …); of no rows for an empty batch.

        Raises:
            MLScaleError: the graph fails for this batch, or its output has another number of rows.
        """
        # A graph need not accept a batch of size 0.
        if not len(batch):
            return np.zeros((0, *self._output.shape[1:]), np.float32)
        try:
            output: NDArray[np.float32] = self._session.run([self._output.name], {self._input.name: batch})[0]
        except Exception as error:
            raise self._build_engine_error(" ".join(str(error).split())) from error
        # A batch size that is built into a reshape changes the number of rows without an error.
        if len(output) != len(batch):
            raise self._build_engine_error(f"it gives {len(output)} rows for {len(batch)} samples")
        return output

    def check_ports(self, name: str, dtype: str, shape: tuple[int, ...], output: str) -> None:
        """Raise an error if the graph's input or output differ from its document.

        Raises:
            MLScaleError: they differ.
        """
        # Without the first dimension: the batch has a symbolic size in the graph and -1 in the document.
        actual = (self._input.name, self._input.type, tuple(self._input.shape[1:]), self._output.name)
        if actual != (name, _TYPES[dtype], shape[1:], output):
            raise self._build_engine_error(f"it does not match its document: {actual}")

    def _build_engine_error(self, why: str) -> MLScaleError:
        return MLScaleError(
            "the ONNX model can't be used",
            where=self._where,
            why=why[:300],
            fix="mlscale export makes the servable again; where the library is too old: pip install -U onnxruntime",
        )
