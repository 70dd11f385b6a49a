"""Encodes outputs for the V2 protocol: as numbers in JSON, as bytes after it, or as the likeliest classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.serve.http.exchange import BINARY, JSON, encode_document
from mlscale.serve.protocol.v2 import LABEL, PROBABILITIES, InferRequest, RequestedOutput
from mlscale.serve.protocol.v2_codec import encode_tensor, encode_texts
from mlscale.serve.protocol.v2_inputs import DATATYPES
from mlscale.serve.served_model import Outputs, ServedModel

_BYTES_PER_TEXT = 256
"""Numbers that are copied as bytes in the time that one is written as text."""


def encode_infer_response(
    model: ServedModel, request: InferRequest, ids: Sequence[str], results: Outputs
) -> tuple[bytes, bytes, bytes]:
    """Return the response to an inference request: its body, content type, and more header lines."""
    tails: list[bytes] = []
    outputs = [_encode_output(model, wanted, results, tails) for wanted in request.outputs]
    document = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    head = encode_document({"id": request.id, **document} if request.id else document)
    if not tails:
        return head, JSON, b""
    # Tensors follow the JSON in the order of the outputs, without padding; clients split them by `binary_data_size`.
    return b"".join([head, *tails]), BINARY, b"Inference-Header-Content-Length: %d\r\n" % len(head)


def count_numbers(request: InferRequest, results: Outputs) -> int:
    """Return the count of numbers that the response holds as text; of those sent as bytes, a fraction is counted."""
    rows, count = len(results.finite), 0
    for wanted in request.outputs:
        size = 0 if wanted.name == LABEL else _get_values(wanted, results).size
        count += rows * wanted.top if wanted.top else size // (_BYTES_PER_TEXT if wanted.binary else 1)
    return rows * len(request.outputs) + count


def select_outputs(request: InferRequest, results: Outputs) -> Outputs:
    """Return what the response is written from."""
    names = {wanted.name for wanted in request.outputs}
    columns = {"predicted": LABEL, "probabilities": PROBABILITIES}
    return Outputs(
        {name: values for name, values in results.tensors.items() if name in names},
        {name: values for name, values in results.columns.items() if columns.get(name) in names},
        results.finite,
    )


def _encode_output(model: ServedModel, wanted: RequestedOutput, results: Outputs, tails: list[bytes]) -> dict[str, Any]:
    """Return the JSON entry of an output; if it is binary, append its bytes to `tails`."""
    array = _get_values(wanted, results)
    values: NDArray[Any] | list[str]
    if wanted.name == LABEL:
        values, datatype, shape = array, "BYTES", [len(array)]
    elif array.dtype.kind not in "biuf":
        values, datatype, shape = list(map(str, array.ravel().tolist())), "BYTES", list(array.shape)
    else:
        values, datatype, shape = array, DATATYPES[array.dtype.name], list(array.shape)
        if wanted.top:
            values, datatype, shape = _format_top_classes(model, array, wanted.top), "BYTES", [len(array), wanted.top]
    entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
    if wanted.binary:
        tails.append(encode_texts(values) if isinstance(values, list) else encode_tensor(values))
        return {**entry, "parameters": {"binary_data_size": len(tails[-1])}}
    return {**entry, "data": values if isinstance(values, list) else values.ravel().tolist()}


def _get_values(wanted: RequestedOutput, results: Outputs) -> Any:
    """Return the values of an output: an array; a list of names for the label."""
    if wanted.name in results.tensors:
        return results.tensors[wanted.name]
    return results.labels if wanted.name == LABEL else results.probabilities


def _format_top_classes(model: ServedModel, values: NDArray[np.float32], count: int) -> list[str]:
    """Return the `count` largest of each row as `value:number:label`, largest first (Triton's classification)."""
    # Stable: of equal values the class with the smaller number comes first.
    order = np.argsort(-values, axis=-1, kind="stable")[:, :count]
    return [
        f"{row[number]:f}:{number}:{model.servable.labels[number]}"
        for row, numbers_ in zip(values, order.tolist(), strict=True)
        for number in numbers_
    ]
