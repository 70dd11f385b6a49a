"""Raw samples to the tensors of a model, by mlscale's own encoder, whose document and code are next to this file."""

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
# First: another version of mlscale may be installed, and encode otherwise.
sys.path.insert(0, str(FOLDER / "mlscale.zip"))

from mlscale.data.encoders.stored_encoder import read_encoder  # noqa: E402


class SampleEncoder:
    """Encodes files of images, rows as JSON, and texts."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the encoder."""
        self._encoder = read_encoder(FOLDER / "encoder.json")
        settings = json.loads((FOLDER / "settings.json").read_text(encoding="utf-8"))
        self._input, self._most_rows = settings["input"], settings["most_rows"]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Encode each request by itself: a bad sample is an error of its own request alone."""
        responses = []
        for request in requests:
            try:
                responses.append(pb_utils.InferenceResponse(self._encode_request(request)))
            except ValueError as error:
                invalid = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse([], invalid))
        return responses

    def _encode_request(self, request: Any) -> list[Any]:
        given = pb_utils.get_input_tensor_by_name(request, self._input).as_numpy().ravel().tolist()
        raw = [self._parse_row(row, number) for number, row in enumerate(given)] if self._input == "row" else given
        packed = self._encoder.pack_samples(raw)
        if packed.bad:
            number = min(packed.bad)
            raise ValueError(f"inputs[{number}] can't be used: {packed.bad[number]}")
        tensors = dict(packed.tensors)
        if packed.counts is not None:
            rows = int(packed.counts.sum())
            if rows > self._most_rows:
                fix = f"send fewer or shorter ones, or export with target.triton.max_batch={rows}"
                raise ValueError(f"the documents have {rows} windows, and a batch has {self._most_rows}: {fix}")
            # The windows' own documents, from which their sums are taken.
            tensors["document"] = np.repeat(np.arange(len(raw)), packed.counts)
        return [pb_utils.Tensor(name, self._convert_tensor(values)) for name, values in tensors.items()]

    def _parse_row(self, content: bytes, number: int) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"inputs[{number}] can't be used: it is not JSON: {error}") from error

    def _convert_tensor(self, values: NDArray[Any]) -> NDArray[Any]:
        if values.dtype == object:
            texts = [text.encode() for text in values.ravel().tolist()]
            return np.array(texts, object).reshape(values.shape)
        # The server has no tensors without a dimension after the batch.
        return np.ascontiguousarray(values[:, None] if values.ndim == 1 else values)


# The name that the server looks for.
TritonPythonModel = SampleEncoder
