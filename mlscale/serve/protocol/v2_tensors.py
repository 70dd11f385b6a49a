"""Encodes outputs for the V2 protocol: as numbers in JSON, as bytes after it, or as the likeliest classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.serve.http.exchange import BINARY, COMPACT, JSON
from mlscale.serve.protocol.v2 import LABEL, PROBABILITIES, Asked, Wanted
from mlscale.serve.served_model import Model, Outputs

_BYTES_PER_TEXT = 256
"""Numbers that are copied as bytes in the time that one is written as text."""


def answer(model: Model, request: Asked, ids: Sequence[str], said: Outputs) -> tuple[bytes, bytes, bytes]:
    """Return the response to an inference request: its body, content type, and more header lines."""
    tails: list[bytes] = []
    outputs = [_tensor(model, wanted, said, tails) for wanted in request.outputs]
    document = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    head = COMPACT({"id": request.id, **document} if request.id else document).encode()
    if not tails:
        return head, JSON, b""
    # Tensors follow the JSON in the order of the outputs, without padding; clients split them by `binary_data_size`.
    return b"".join([head, *tails]), BINARY, b"Inference-Header-Content-Length: %d\r\n" % len(head)


def numbers_written(request: Asked, said: Outputs) -> int:
    """Return the count of numbers that the response holds as text; of those sent as bytes, a fraction is counted."""
    rows, classes = said.probabilities.shape
    sizes = (
        wanted.top or (classes // _BYTES_PER_TEXT if wanted.binary else classes)
        for wanted in request.outputs
        if wanted.name != LABEL
    )
    return int(rows) * (len(request.outputs) + sum(sizes))


def _tensor(model: Model, wanted: Wanted, said: Outputs, tails: list[bytes]) -> dict[str, Any]:
    """Return the JSON entry of an output; if it is binary, append its bytes to `tails`."""
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
    """Return the `count` largest of each row as `value:number:label`, largest first (Triton's classification)."""
    # Stable: of equal values the class with the smaller number comes first.
    order = np.argsort(-values, axis=-1, kind="stable")[:, :count]
    return [
        f"{row[number]:f}:{number}:{model.servable.labels[number]}"
        for row, numbers_ in zip(values, order.tolist(), strict=True)
        for number in numbers_
    ]


def _bytes(texts: Sequence[str]) -> bytes:
    """Return a BYTES tensor: of each element its length (4 bytes, little endian) and its content."""
    # Names of classes may hold lone surrogates, which UTF-8 can't encode.
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return b"".join(len(each).to_bytes(4, "little") + each for each in encoded)
