"""`POST /predict`, the simple protocol: takes JSON, raw bytes or an image file, returns labels and probabilities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

from numpy.typing import NDArray

from mlscale.serve.http.exchange import COMPACT, JSON
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import image_input as images
from mlscale.serve.protocol import json_numbers, v2
from mlscale.serve.served_model import Outputs, ServedModel

_JSON_KINDS = (b"application/json", b"text/json", b"application/x-www-form-urlencoded")  # the last: curl -d


class PredictRequest(NamedTuple):
    """A parsed request.

    Attributes:
        raw: n samples as the model takes them.
        ids: one for each sample, where the client gave a list of them; else empty.
        id: one for all samples, where the client gave one; else ''.
    """

    raw: NDArray[Any]
    ids: Sequence[str]
    id: str


def compute_body_limit(model: ServedModel, headers: Mapping[bytes, bytes], max_rows: int) -> int | None:
    """Return the most bytes of a request; None for images, whose size is not known."""
    kind = images.parse_content_type(headers)
    if kind == b"application/octet-stream":
        return max_rows * model.sample_bytes
    return None if kind in images.KINDS else model.json_bytes


def count_json_bytes(headers: Mapping[bytes, bytes], body: bytes | bytearray) -> int:
    """Return the number of bytes of JSON in a request."""
    return len(body) if images.parse_content_type(headers) in _JSON_KINDS else 0


def count_numbers(request: PredictRequest, outputs: Outputs) -> int:
    """Return the count of numbers that the response holds, texts included."""
    # Per row: id, label, class, confidence and their keys, as long as some numbers.
    return outputs.probabilities.size + 8 * len(outputs.labels)


def parse_predict_request(
    model: ServedModel, headers: Mapping[bytes, bytes], body: bytes | bytearray
) -> PredictRequest:
    """Parse a request by its content type.

    Raises:
        Refused: it is not what the model takes.
    """
    kind = images.parse_content_type(headers)
    named = v2.validate_id(headers.get(b"mlscale-id", b"").decode("latin-1"))
    if kind == b"application/octet-stream":
        return PredictRequest(v2.parse_raw_samples(model, body), (), named)
    if kind in images.KINDS:
        return PredictRequest(images.decode_image_sample(model, bytes(body), kind), (), named)
    if kind in _JSON_KINDS:
        return _parse_json_request(model, body, named)
    raise Refused(
        f"can't read {kind.decode('latin-1')[:200]}: send application/json, application/octet-stream, image/jpeg, "
        "image/png",
        415,
    )


def _parse_json_request(model: ServedModel, body: bytes | bytearray, named: str) -> PredictRequest:
    try:
        json_numbers.check_expansion(model, body)
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict) or "inputs" not in document:
        raise Refused('send {"inputs": [sample, …]}, with an optional "id" next to it')
    unknown = sorted(set(document) - {"inputs", "id"})
    if unknown:
        raise Refused(f"unknown key '{unknown[0][:200]}'; known are inputs and id")
    raw, id_ = json_numbers.parse_samples(model, document["inputs"]), document.get("id")
    if not len(raw):
        raise Refused("no samples in the request")
    if not isinstance(id_, list):
        return PredictRequest(raw, (), v2.validate_id(id_) or named)
    ids = [v2.validate_id(item) for item in id_]
    # An event is found by its id, so two samples of a request can't share one.
    if len(ids) != len(raw) or not all(ids) or len(set(ids)) != len(ids):
        raise Refused(f"{len(raw)} samples need as many ids, each another text, or one id for all")
    return PredictRequest(raw, ids, "")


def encode_predict_response(
    model: ServedModel, request: PredictRequest, ids: Sequence[str], outputs: Outputs
) -> tuple[bytes, bytes, bytes]:
    """Return the response with a prediction for each sample: its body, content type, and more header lines.

    Raises:
        Refused: the model returns NaN, which JSON does not have.
    """
    rows = zip(ids, outputs.labels, outputs.classes.tolist(), outputs.probabilities.tolist(), strict=True)
    predictions: list[dict[str, Any]] = [
        {"id": id_, "label": label, "class": number, "confidence": row[number], "probabilities": row}
        for id_, label, number, row in rows
    ]
    if any(isnan(row["confidence"]) for row in predictions):  # one NaN among the logits makes all of them so
        raise Refused("the model gives no finite numbers for these inputs")
    document = {"model_name": model.name, "model_version": model.version, "predictions": predictions}
    return COMPACT(document).encode(), JSON, b""
