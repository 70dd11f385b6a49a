"""A backend `onnxruntime` for a Triton server without the one in C++: it loads an unmodified repository."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

# Before the import, which reads it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime


class OnnxModel:
    """Computes `model.onnx` of a model's version, with the threads that its configuration states."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model once for each instance."""
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        for name in ("intra_op", "inter_op"):
            stated = config["parameters"].get(f"{name}_thread_count", {}).get("string_value", "0")
            setattr(options, f"{name}_num_threads", int(stated))
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]
        self._texts = {node.name for node in self._session.get_inputs() if node.type == "tensor(string)"}

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Compute all requests in one batch: the server joins only those that fit together."""
        try:
            parts = [[self._read_input(request, name) for name in self._inputs] for request in requests]
            joined = {name: np.concatenate(rows) for name, *rows in zip(self._inputs, *parts, strict=True)}
            outputs = self._session.run(self._outputs, joined)
        except Exception as error:
            refused = pb_utils.TritonError(f"onnx runtime error: {error}")
            return [pb_utils.InferenceResponse([], refused) for _ in requests]
        # Each request has its own rows, in the order in which they were joined.
        ends = np.cumsum([len(part[0]) for part in parts])[:-1]
        rows = zip(*(np.split(output, ends) for output in outputs), strict=True)
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in zip(self._outputs, values, strict=True)])
            for values in rows
        ]

    def _read_input(self, request: Any, name: str) -> NDArray[Any]:
        values: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        if name not in self._texts:
            return values
        # The runtime takes text, and requests have bytes.
        texts = [text.decode() for text in values.ravel()]
        return np.array(texts, object).reshape(values.shape)


# The name that the server looks for.
TritonPythonModel = OnnxModel
