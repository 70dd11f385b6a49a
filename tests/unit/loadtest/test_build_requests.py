"""Requests of each protocol, of tensors and of raw samples, and what a protocol can't send."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from mlscale.errors import MLScaleError
from mlscale.loadtest.build_requests import LoadRequest, build_requests, choose_protocol
from mlscale.loadtest.load_samples import RequestSamples
from mlscale.loadtest.server_model import InputTensor, ServerModel

RAW = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4)
IMAGES = ServerModel("m", (InputTensor("x", "uint8", (1, 4, 4)),), 2, {"type": "image"}, raw_tensor="image")
PIXELS = RequestSamples("random samples", {"x": RAW}, labels=("a", "b"))
FILES = RequestSamples("files", raw=[b"\xff\xd8jpeg", b"\x89PNG"], form="image")
TABLE = ServerModel(
    "t",
    (InputTensor("numbers", "float64", (2,)), InputTensor("texts", "object", (1,))),
    raw_input={"type": "table"},
    tensor_columns={"numbers": ["b", "a"], "texts": ["c"]},
)
ROWS = RequestSamples("rows", raw=[{"a": 1.5, "b": 2, "c": "é"}, {"a": None, "b": 3.0, "c": None}], form="row")
TEXTS = ServerModel(
    "s",
    (InputTensor("bytes", "uint8", (9,)), InputTensor("lengths", "int64", ())),
    raw_input={"type": "text"},
    raw_tensor="text",
)
LINES = RequestSamples("lines", raw=["naïve 🙂".encode(), b"\xff\0a"], form="text")


def ask(protocol: str, samples: RequestSamples = PIXELS, model: ServerModel = IMAGES, batch: int = 2) -> LoadRequest:
    return build_requests(protocol, samples, model, batch)[0]


def read_tensors(request: LoadRequest) -> list[tuple[dict[str, Any], bytes]]:
    """The entries of a binary V2 request, each with its bytes."""
    at = int(request.headers["Inference-Header-Content-Length"])
    found = []
    for entry in json.loads(request.body[:at])["inputs"]:
        size = entry.pop("parameters")["binary_data_size"]
        found.append((entry, request.body[at : at + size]))
        at += size
    assert at == len(request.body)
    return found


def write_texts(*texts: bytes) -> bytes:
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def test_bytes_are_the_samples() -> None:
    assert (ask("bytes").path, ask("bytes").body, ask("bytes").count) == ("/predict", RAW.tobytes(), 2)
    assert ask("bytes").labels == ("a", "b")


def test_v2_has_its_header_in_front() -> None:
    asked = ask("v2")
    length = int(asked.headers["Inference-Header-Content-Length"])
    assert asked.path == "/v2/models/m/infer"
    assert asked.body[length:] == RAW.tobytes()
    assert json.loads(asked.body[:length])["inputs"][0]["parameters"] == {"binary_data_size": 32}


def test_the_last_batch_is_filled_up() -> None:
    three = RequestSamples("three", {"x": np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)})
    asked = build_requests("bytes", three, IMAGES, 2)
    assert [request.body[::16] for request in asked] == [bytes([0, 16]), bytes([32, 0])]


def test_rows_are_sent_by_column_and_as_tensors() -> None:
    asked = ask("raw", ROWS, TABLE)
    assert (asked.path, asked.headers["Content-Type"], asked.count) == ("/predict", "application/json", 2)
    assert json.loads(asked.body) == {"inputs": list(ROWS.raw)}
    (numbers, content), (texts, letters) = read_tensors(ask("v2", ROWS, TABLE))
    assert numbers == {"name": "numbers", "datatype": "FP64", "shape": [2, 2]}
    assert texts == {"name": "texts", "datatype": "BYTES", "shape": [2, 1]}
    values = np.frombuffer(content, np.float64).tolist()
    assert values[:3] == [2, 1.5, 3]
    assert math.isnan(values[3])
    assert letters == write_texts("é".encode(), b"")


def test_texts_and_images_are_sent_as_they_are_and_as_bytes() -> None:
    asked = ask("raw", LINES, TEXTS, batch=1)
    assert (asked.headers["Content-Type"], asked.body) == ("text/plain", LINES.raw[0])
    assert json.loads(ask("raw", LINES, TEXTS).body) == {"inputs": ["naïve 🙂", "�\0a"]}
    assert read_tensors(ask("v2", LINES, TEXTS)) == [
        ({"name": "text", "datatype": "BYTES", "shape": [2]}, write_texts(*LINES.raw))
    ]
    sent = build_requests("raw", FILES, IMAGES, 1)
    assert [request.headers["Content-Type"] for request in sent] == ["image/jpeg", "image/png"]
    assert [request.body for request in sent] == FILES.raw
    (image, content), *_ = read_tensors(ask("v2", FILES, IMAGES))
    assert (image["name"], content) == ("image", write_texts(*FILES.raw))


def test_several_tensors_are_sent_by_v2() -> None:
    both = RequestSamples("both", {"a": np.array([[1, 2], [3, 4]], np.float32), "b": np.array([5, 6])})
    model = ServerModel("m", (InputTensor("a", "float32", (2,)), InputTensor("b", "int64", ())))
    assert choose_protocol("auto", both, model, 1) == "v2"


@pytest.mark.parametrize(
    ("samples", "model", "batch", "able"),
    [
        (PIXELS, IMAGES, 2, ["bytes", "v2"]),
        (FILES, IMAGES, 1, ["raw", "v2"]),
        (FILES, IMAGES, 2, ["v2"]),
        (ROWS, TABLE, 2, ["raw", "v2"]),
        (ROWS, ServerModel("t", TABLE.inputs, raw_input={"type": "table"}), 1, ["raw"]),
        (LINES, TEXTS, 2, ["raw", "v2"]),
    ],
)
def test_what_a_protocol_can_send(samples: RequestSamples, model: ServerModel, batch: int, able: Sequence[str]) -> None:
    for protocol in ("raw", "bytes", "v2"):
        if protocol in able:
            assert choose_protocol(protocol, samples, model, batch) == protocol
            assert build_requests(protocol, samples, model, batch)[0].count == batch
        else:
            with pytest.raises(MLScaleError, match=f"can't be sent by protocol={protocol}"):
                choose_protocol(protocol, samples, model, batch)


def test_auto_sends_raw_samples_as_they_are_and_pixels_as_bytes() -> None:
    assert choose_protocol("auto", ROWS, TABLE, 4) == "raw"
    assert choose_protocol("auto", PIXELS, IMAGES, 4) == "bytes"
    with pytest.raises(MLScaleError, match="protocol=raw") as reported:
        choose_protocol("auto", FILES, IMAGES, 4)
    assert reported.value.why == "a request has one image file"
    assert reported.value.fix == "batch=1"
