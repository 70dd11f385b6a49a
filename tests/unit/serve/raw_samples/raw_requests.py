"""Raw samples of every kind, and what a server and the servable itself answer to them."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from mlscale.serve.protocol import predict_route as predict
from mlscale.serve.protocol import v2, v2_tensors
from mlscale.serve.served_model import ServedModel
from tests.made_servables import PENGUIN

JSON, TEXT = {b"content-type": b"application/json"}, {b"content-type": b"text/plain"}


TEXTS: list[Any] = [
    "good",
    "Größe 🐧 and 👩‍👩‍👧",
    "zero\0in it",
    b"\xff\xfe not UTF-8 \x80",
    "a text that is longer than all of the tokens",
]


ROWS = [
    PENGUIN,
    {**PENGUIN, "bill_length_mm": None, "island": None},
    {**PENGUIN, "island": "Atlantis", "sex": "unknown 🐧"},
    {**PENGUIN, "bill_length_mm": "41.25", "body_mass_g": float("nan"), "more": [1]},
    {**PENGUIN, "bill_length_mm": -0.0, "body_mass_g": 10**20, "sex": "\ud800"},
]


DOCUMENTS = ["one", "a document that has several windows, since it is longer", "é🐧"]


def photographs() -> list[tuple[bytes, bytes]]:
    """Content types and images: every format, odd sizes, colours and grey."""
    made = []
    kinds = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tiff"}
    for number, (kind, name) in enumerate({**kinds, "PPM": "x-portable-pixmap"}.items()):
        height, width = 9 + 7 * number, 73 - 9 * number
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([4 * x, 255 - 3 * y, x * y % 256], -1).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(file := io.BytesIO(), kind)
        made.append((f"image/{name}".encode(), file.getvalue()))
    Image.fromarray(np.full((1, 300, 3), 90, np.uint8)).save(file := io.BytesIO(), "PNG")
    return [*made, (b"image/png", file.getvalue())]


def ask(model: ServedModel, headers: dict[bytes, bytes], body: bytes) -> list[dict[str, Any]]:
    """Parse a request, compute it, and return the predictions of the response, without their ids."""
    request = predict.parse_predict_request(model, headers, body)
    outputs = model.compute(request.samples)
    ids = request.ids or [request.id] * request.samples.size
    # As in another process: without the engine, the samples, and what is not needed.
    selected = predict.select_outputs(request, outputs)
    content, _, _ = predict.encode_predict_response(model.portable, request, ids, selected)
    answers: list[dict[str, Any]] = json.loads(content)["predictions"]
    assert [answer.pop("id") for answer in answers] == list(ids)
    return answers


def expect(model: ServedModel, raw: list[Any]) -> list[dict[str, Any]]:
    """Return the answers that the servable itself gives, one sample after the other, as JSON."""
    servable, answers = model.servable, []
    for sample in raw:
        predictions = servable.predict_samples([sample])
        assert not predictions.bad
        answers += servable.task_type.build_answers(predictions.columns, servable.names)
    again: list[dict[str, Any]] = json.loads(json.dumps(answers))
    return again


def infer(model: ServedModel, inputs: list[dict[str, Any]], tail: bytes = b"", **more: Any) -> dict[str, Any]:
    """Send a V2 request; the outputs by name."""
    head = json.dumps({"inputs": inputs, **more}).encode()
    headers = {b"inference-header-content-length": b"%d" % len(head)}
    request = v2.parse_infer_request(model, headers, head + tail)
    if request.files:
        from mlscale.serve.protocol import image_input

        request = request._replace(samples=image_input.decode_image_samples(model, request.files), files=())
    outputs = v2_tensors.select_outputs(request, model.compute(request.samples))
    document = json.loads(v2_tensors.encode_infer_response(model, request, ["x"], outputs)[0])
    assert v2_tensors.count_numbers(request, outputs) > 0
    return {entry["name"]: np.array(entry["data"]).reshape(entry["shape"]) for entry in document["outputs"]}


def encode_texts(texts: list[bytes]) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
