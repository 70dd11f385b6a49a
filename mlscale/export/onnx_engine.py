"""ONNX Runtime, set up for a server: one thread per worker, nothing on stderr, the model from memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.required_extras import need

_TYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)", "int64": "tensor(int64)"}
_NOTHING = 4


def onnx_runtime() -> Any:
    """The package onnxruntime, which tells nobody what it runs and keeps its warnings to itself.

    Raises:
        MLScaleError: it is not installed (exit code 5).
    """
    need("serve", "onnxruntime")
    # From 1.32 on it tells its maker what it runs, and leaves a device id in the home folder. Read at import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.set_default_logger_severity(_NOTHING)
    return onnxruntime


class Engine:
    """A model with one input and one output.

    Args:
        model: the serialised ONNX model. From memory, so that what was verified is what runs, and no file beside it is
            opened.
        threads: that compute one batch.
        where: for errors.

    Raises:
        MLScaleError: onnxruntime is not installed (exit code 5), or it can't run this model.
    """

    def __init__(self, model: bytes, *, threads: int = 1, where: str = "model.onnx") -> None:
        onnxruntime = onnx_runtime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _NOTHING
        self._where = where
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a dozen kinds, which share no base
            raise self._unusable(" ".join(str(error).split())) from error
        if (counts := (len(self._session.get_inputs()), len(self._session.get_outputs()))) != (1, 1):
            raise self._unusable(f"it has {counts[0]} inputs and {counts[1]} outputs, not one of each")
        self._input, self._output = self._session.get_inputs()[0], self._session.get_outputs()[0]

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """The output for a batch, (n, …); of none for none.

        Raises:
            MLScaleError: the graph does not compute for this batch, or gives another number of rows than it was given.
        """
        if not len(batch):
            return np.zeros((0, *self._output.shape[1:]), np.float32)
        try:
            output: NDArray[np.float32] = self._session.run([self._output.name], {self._input.name: batch})[0]
        except Exception as error:
            raise self._unusable(" ".join(str(error).split())) from error
        if len(output) != len(batch):
            raise self._unusable(f"it gives {len(output)} rows for {len(batch)} samples")
        return output

    def check(self, name: str, dtype: str, shape: tuple[int, ...], output: str) -> None:
        """See that the graph takes and gives what its document says.

        Raises:
            MLScaleError: it does not.
        """
        found = (self._input.name, self._input.type, tuple(self._input.shape[1:]), self._output.name)
        if found != (name, _TYPES[dtype], shape[1:], output):
            raise self._unusable(f"it is not what its document says: {found}")

    def _unusable(self, why: str) -> MLScaleError:
        return MLScaleError(
            "the ONNX model can't be used",
            where=self._where,
            why=why[:300],
            fix="mlscale export makes the servable again; where the library is too old: pip install -U onnxruntime",
        )
