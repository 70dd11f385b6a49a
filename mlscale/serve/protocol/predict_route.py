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
from mlscale.serve.served_model import Model, Outputs

_JSON_KINDS = (b"application/json", b"text/json", b"application/x-www-form-urlencoded")  # the last: curl -d


class Asked(NamedTuple):
    """A parsed request.

    Attributes:
        raw: n samples as the model takes them.
        ids: one for each sample, where the client gave a list of them; else empty.
        id: one for all samples, where the client gave one; else ''.
    """

    raw: NDArray[Any]
    ids: Sequence[str]
    id: str


def body_limit(model: Model, headers: Mapping[bytes, bytes], max_rows: int) -> int | None:
    """Return the most bytes of a request; None for images, whose size is not known."""
    kind = images.kind_of(headers)
    if kind == b"application/octet-stream":
        return max_rows * model.sample_bytes
    return None if kind in images.KINDS else model.json_bytes


def json_bytes(headers: Mapping[bytes, bytes], body: bytes | bytearray) -> int:
    """Return the number of bytes of JSON in a request."""
    return len(body) if images.kind_of(headers) in _JSON_KINDS else 0


def numbers_written(request: Asked, said: Outputs) -> int:
    """Return the count of numbers that the response holds, texts included."""
    # Per row: id, label, class, confidence and their keys, as long as some numbers.
    return said.probabilities.size + 8 * len(said.labels)


def asked(model: Model, headers: Mapping[bytes, bytes], body: bytes | bytearray) -> Asked:
    """Parse a request by its content type.

    Raises:
        Refused: it is not what the model takes.
    """
    kind = images.kind_of(headers)
    named = v2.checked_id(headers.get(b"mlscale-id", b"").decode("latin-1"))
    if kind == b"application/octet-stream":
        return Asked(v2.from_bytes(model, body), (), named)
    if kind in images.KINDS:
        return Asked(images.pixels(model, bytes(body), kind), (), named)
    if kind in _JSON_KINDS:
        return _of_json(model, body, named)
    raise Refused(
        f"can't read {kind.decode('latin-1')[:200]}: send application/json, application/octet-stream, image/jpeg, "
        "image/png",
        415,
    )


def _of_json(model: Model, body: bytes | bytearray, named: str) -> Asked:
    try:
        json_numbers.check_expansion(model, body)
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(f"this is no JSON: {error}") from error
    if not isinstance(document, dict) or "inputs" not in document:
        raise Refused('send {"inputs": [sample, …]}, with "id" beside it if you like')
    unknown = sorted(set(document) - {"inputs", "id"})
    if unknown:
        raise Refused(f"unknown key '{unknown[0][:200]}'; known are inputs and id")
    raw, id_ = json_numbers.numbers(model, document["inputs"]), document.get("id")
    if not len(raw):
        raise Refused("there are no samples")
    if not isinstance(id_, list):
        return Asked(raw, (), v2.checked_id(id_) or named)
    ids = [v2.checked_id(each) for each in id_]
    # An event is found by its id, so two samples of a request can't share one.
    if len(ids) != len(raw) or not all(ids) or len(set(ids)) != len(ids):
        raise Refused(f"{len(raw)} samples need as many ids, each another text, or one id for all")
    return Asked(raw, ids, "")


def answer(model: Model, request: Asked, ids: Sequence[str], said: Outputs) -> tuple[bytes, bytes, bytes]:
    """Return the response with a prediction for each sample: its body, content type, and more header lines.

    Raises:
        Refused: the model returns NaN, which JSON does not have.
    """
    rows = zip(ids, said.labels, said.classes.tolist(), said.probabilities.tolist(), strict=True)
    predictions: list[dict[str, Any]] = [
        {"id": id_, "label": label, "class": number, "confidence": each[number], "probabilities": each}
        for id_, label, number, each in rows
    ]
    if any(isnan(each["confidence"]) for each in predictions):  # one NaN among the logits makes all of them so
        raise Refused("the model gives no finite numbers for these inputs")
    document = {"model_name": model.name, "model_version": model.version, "predictions": predictions}
    return COMPACT(document).encode(), JSON, b""
