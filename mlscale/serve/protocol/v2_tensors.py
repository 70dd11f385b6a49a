"""Outputs as the V2 protocol sends them: numbers in JSON, bytes behind it, or the likeliest classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.serve.http.exchange import BINARY, COMPACT, JSON
from mlscale.serve.protocol.v2 import LABEL, PROBABILITIES, Asked, Wanted
from mlscale.serve.served_model import Model, Outputs

_BYTES_PER_TEXT = 256
"""Numbers that are copied in the time that one is written as text."""


def answer(model: Model, request: Asked, ids: Sequence[str], said: Outputs) -> tuple[bytes, bytes, bytes]:
    """The answer to a request for inference: its body, content type, and more lines of its head."""
    tails: list[bytes] = []
    outputs = [_tensor(model, wanted, said, tails) for wanted in request.outputs]
    document = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    head = COMPACT({"id": request.id, **document} if request.id else document).encode()
    if not tails:
        return head, JSON, b""
    return b"".join([head, *tails]), BINARY, b"Inference-Header-Content-Length: %d\r\n" % len(head)


def numbers_written(request: Asked, said: Outputs) -> int:
    """How many numbers the answer holds as JSON, or as text; of those that are sent as bytes, one in so many."""
    rows, classes = said.probabilities.shape
    sizes = (
        wanted.top or (classes // _BYTES_PER_TEXT if wanted.binary else classes)
        for wanted in request.outputs
        if wanted.name != LABEL
    )
    return int(rows) * (len(request.outputs) + sum(sizes))


def _tensor(model: Model, wanted: Wanted, said: Outputs, tails: list[bytes]) -> dict[str, Any]:
    """An output in the answer's JSON; its bytes go to `tails` where it is binary."""
    values: NDArray[Any] | list[str]
    if wanted.name == LABEL:
        values, datatype, shape = said.labels, "BYTES", [len(said.labels)]
    else:
        values, datatype = said.probabilities if wanted.name == PROBABILITIES else said.logits, "FP32"
        shape = list(values.shape)
        if wanted.top:
            values, datatype, shape = _top(model, values, wanted.top), "BYTES", [len(values), wanted.top]
    entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
    if wanted.binary:
        tails.append(_bytes(values) if isinstance(values, list) else np.ascontiguousarray(values).tobytes())
        return {**entry, "parameters": {"binary_data_size": len(tails[-1])}}
    return {**entry, "data": values if isinstance(values, list) else values.ravel().tolist()}


def _top(model: Model, values: NDArray[np.float32], count: int) -> list[str]:
    """The `count` largest of each row as `value:number:label`, largest first."""
    order = np.argsort(-values, axis=-1, kind="stable")[:, :count]
    return [
        f"{row[number]:f}:{number}:{model.servable.labels[number]}"
        for row, numbers_ in zip(values, order.tolist(), strict=True)
        for number in numbers_
    ]


def _bytes(texts: Sequence[str]) -> bytes:
    """Elements of a BYTES tensor: each its length (4 bytes, little endian) and its content."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return b"".join(len(each).to_bytes(4, "little") + each for each in encoded)
