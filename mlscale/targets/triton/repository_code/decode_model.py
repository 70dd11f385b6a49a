"""The outputs of a model to those of its samples: probabilities and names of classes, sums over windows."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parent
# First: another version of mlscale may be installed.
sys.path.insert(0, str(FOLDER / "mlscale.zip"))

from mlscale.task_types.softmax import compute_softmax  # noqa: E402
from mlscale.task_types.window_sums import sum_windows  # noqa: E402


class OutputDecoder:
    """Gives what `mlscale serve` adds to a graph's outputs, by the same code."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the names of the classes."""
        settings = json.loads((FOLDER / "settings.json").read_text(encoding="utf-8"))
        self._kind, self._labels = settings["kind"], settings["labels"]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Decode each request by itself."""
        decode = self._decode_classes if self._kind == "classes" else self._decode_windows
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor(*pair) for pair in decode(one).items()]) for one in requests
        ]

    def _decode_classes(self, request: Any) -> dict[str, NDArray[Any]]:
        logits = self._read_input(request, "graph_logits")
        probabilities = compute_softmax(logits)
        # Lone surrogates of a name are no UTF-8.
        names = [self._labels[number].encode("utf-8", "replace") for number in probabilities.argmax(-1).tolist()]
        return {"logits": logits, "probabilities": probabilities, "label": np.array(names, object)[:, None]}

    def _decode_windows(self, request: Any) -> dict[str, NDArray[Any]]:
        documents = self._read_input(request, "document").ravel()
        outputs = {name: self._read_input(request, f"graph_{name}").ravel() for name in ("nats", "tokens")}
        sums = sum_windows(outputs, np.bincount(documents))
        return {name: values[:, None] for name, values in sums.items()}

    def _read_input(self, request: Any, name: str) -> NDArray[Any]:
        values: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
        return values


# The name that the server looks for.
TritonPythonModel = OutputDecoder
