"""Builds the requests of each protocol. Needs numpy only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.image_files import find_image_type
from mlscale.errors import MLScaleError
from mlscale.loadtest.load_samples import RequestSamples
from mlscale.loadtest.server_model import ServerModel
from mlscale.serve.protocol.v2_codec import encode_request


@dataclass(frozen=True)
class LoadRequest:
    """A request to send.

    Attributes:
        path: of the URL, for POST.
        headers: all but the length.
        body: the bytes to send.
        count: the number of its samples.
        labels: their correct classes; None where they are not known.
    """

    path: str
    headers: Mapping[str, str]
    body: bytes
    count: int
    labels: tuple[str, ...] | None


def choose_protocol(protocol: str, samples: RequestSamples, model: ServerModel, batch: int) -> str:
    """Return the protocol to send samples by; of `auto`, raw samples as they are, one tensor as bytes, several by V2.

    Raises:
        MLScaleError: the protocol can't send them.
    """
    if protocol == "auto":
        of_tensors = "bytes" if len(model.inputs) == 1 and model.inputs[0].is_fixed else "v2"
        protocol = "raw" if samples.raw else of_tensors
    if why := _find_obstacle(protocol, samples, model, batch):
        raise MLScaleError(
            f"{samples.name} can't be sent by protocol={protocol}",
            where="protocol",
            why=why,
            fix="batch=1" if batch > 1 and samples.form == "image" and protocol == "raw" else "protocol=auto",
        )
    return protocol


def _find_obstacle(protocol: str, samples: RequestSamples, model: ServerModel, batch: int) -> str:
    """Return why the samples can't be sent; '' where they can."""
    if protocol == "raw":
        if not samples.raw:
            return "they are tensors, not rows, texts or image files"
        return "a request has one image file" if samples.form == "image" and batch > 1 else ""
    if protocol == "bytes":
        return "" if len(samples.tensors) == 1 and model.inputs[0].is_fixed else "it takes one tensor of a fixed size"
    if samples.form == "row" and not model.tensor_columns:
        return "the server does not state which columns its tensors have"
    if samples.form in ("text", "image") and not model.raw_tensor:
        return f"the server has no BYTES tensor for a raw {samples.form}"
    return ""


def build_requests(protocol: str, samples: RequestSamples, model: ServerModel, batch: int) -> list[LoadRequest]:
    """Return all requests in order: batches of the samples, the last one filled up from the first samples.

    Args:
        protocol: raw (POST /predict, samples as they are), bytes (the bytes of a tensor), or v2 (the V2 protocol with
            its binary extension).
        samples: at least one.
        model: that takes them.
        batch: samples in a request.
    """
    count = len(samples)
    return [
        _build_request(protocol, samples, model, [(start + offset) % count for offset in range(batch)])
        for start in range(0, count, batch)
    ]


def _build_request(protocol: str, samples: RequestSamples, model: ServerModel, rows: Sequence[int]) -> LoadRequest:
    labels = tuple(samples.labels[row] for row in rows) if samples.labels else None
    tensors = {name: values[list(rows)] for name, values in samples.tensors.items()}
    raw = [samples.raw[row] for row in rows] if samples.raw else []
    if protocol == "v2":
        # V2 has tensors alone: raw samples become the tensors that the server states for them.
        path = f"/v2/models/{model.name}/infer"
        headers, body = encode_request(tensors or _convert_raw(samples.form, raw, model))
    elif protocol == "bytes":
        path, headers = "/predict", {"Content-Type": "application/octet-stream"}
        body = next(iter(tensors.values())).tobytes()
    else:
        content_type, body = _build_prediction(samples.form, raw)
        path, headers = "/predict", {"Content-Type": content_type}
    # No compression: its time would be a part of the latencies.
    return LoadRequest(path, {"Accept-Encoding": "identity", **headers}, body, len(rows), labels)


def _build_prediction(form: str, raw: Sequence[Any]) -> tuple[str, bytes]:
    """Return the content type and the body of a request to `/predict` with raw samples."""
    if form == "image":
        return find_image_type(raw[0], "image/jpeg"), raw[0]
    # Bytes that are not UTF-8 stay what they are, as in a file that is sent.
    if form == "text" and len(raw) == 1:
        return "text/plain", raw[0]
    # What is not UTF-8 has no place in JSON; the server gets a mark in its place, as of any JSON client.
    inputs = [sample.decode(errors="replace") if isinstance(sample, bytes) else sample for sample in raw]
    return "application/json", json.dumps({"inputs": inputs}).encode()


def _convert_raw(form: str, raw: Sequence[Any], model: ServerModel) -> dict[str, NDArray[Any]]:
    """Return the V2 tensors of raw samples: columns by tensor, or one BYTES tensor."""
    if form != "row":
        values = np.empty(len(raw), object)
        values[:] = raw
        return {model.raw_tensor: values}
    tensors = {}
    for tensor in model.inputs:
        columns = model.tensor_columns[tensor.name]
        fill, convert = ("", str) if tensor.dtype == "object" else (math.nan, float)
        rows = [[fill if row[name] is None else convert(row[name]) for name in columns] for row in raw]
        tensors[tensor.name] = np.array(rows, tensor.dtype)
    return tensors
