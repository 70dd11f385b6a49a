"""What a server answers to a raw sample is what `predict_samples` of the same servable gives, bitwise: every task type,
and awkward samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import predict_route as predict
from mlscale.serve.served_model import ServedModel, load_model
from tests.made_servables import PENGUIN
from tests.unit.serve.raw_samples.raw_requests import DOCUMENTS, JSON, ROWS, TEXT, TEXTS, ask, expect, photographs


@pytest.mark.parametrize("name", ["penguins", "mass"])
def test_rows(models: dict[str, ServedModel], name: str) -> None:
    model = models[name]
    for row in ROWS:
        assert ask(model, JSON, json.dumps(row).encode()) == expect(model, [row])
        assert ask(model, {}, json.dumps({"inputs": row}).encode()) == expect(model, [row])
    body = json.dumps({"inputs": ROWS[:3], "id": ["a", "b", "c"]}).encode()
    assert [list(answer) for answer in ask(model, JSON, body)] == [list(answer) for answer in expect(model, ROWS[:3])]


@pytest.mark.parametrize("charset", ["latin-1", "ISO-8859-1", '"windows-1252"', "utf-16", "UTF-8"])
def test_the_charset_of_a_text_is_honoured(models: dict[str, ServedModel], charset: str) -> None:
    kind = {b"content-type": f"text/plain; charset={charset}; format=flowed".encode()}
    content = "Größe".encode(charset.strip('"'))
    assert ask(models["reviews"], kind, content) == expect(models["reviews"], ["Größe"])


@pytest.mark.parametrize("name", ["reviews"])
def test_texts(models: dict[str, ServedModel], name: str) -> None:
    model = models[name]
    for text in TEXTS:
        content = text.encode() if isinstance(text, str) else text
        assert ask(model, TEXT, content) == expect(model, [text])
        if isinstance(text, str):
            assert ask(model, JSON, json.dumps(text).encode()) == expect(model, [text])
            assert ask(model, JSON, json.dumps({"inputs": text}).encode()) == expect(model, [text])
    # Bytes that were not UTF-8 when a file was read by Python, as JSON has them.
    assert ask(model, JSON, json.dumps(b"\xff\x80".decode("utf-8", "surrogateescape")).encode()) == expect(
        model, [b"\xff\x80"]
    )


def test_documents(models: dict[str, ServedModel]) -> None:
    model = models["tales"]
    for document in DOCUMENTS:
        assert ask(model, TEXT, document.encode()) == expect(model, [document])
    assert ask(model, JSON, json.dumps({"inputs": DOCUMENTS}).encode()) == expect(model, DOCUMENTS)
    (answer,) = ask(model, TEXT, DOCUMENTS[1].encode())
    assert answer["tokens"] == len(DOCUMENTS[1]) + 1


@pytest.mark.parametrize("name", ["photos", "tags", "masks"])
def test_images(models: dict[str, ServedModel], name: str) -> None:
    model = models[name]
    for kind, content in photographs():
        assert ask(model, {b"content-type": kind}, content) == expect(model, [content])


def test_tensors(models: dict[str, ServedModel]) -> None:
    model = models["sums"]
    sample = {"left": [1, 2.5], "right": [0.1, -3]}
    assert ask(model, JSON, json.dumps({"inputs": sample}).encode()) == expect(model, [sample])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), np.uint8)
    octets = {b"content-type": b"application/octet-stream"}
    for name in ("photos", "masks"):
        expected = expect(models[name], [pixels])
        assert ask(models[name], octets, pixels.tobytes()) == expected
        assert ask(models[name], JSON, json.dumps({"inputs": [pixels.tolist()]}).encode()) == expected


def test_the_id_of_a_row(models: dict[str, ServedModel]) -> None:
    model = models["penguins"]
    for given, expected in (("order-17", "order-17"), (17, "17"), (None, "")):
        body = json.dumps({**PENGUIN, "id": given}).encode()
        assert predict.parse_predict_request(model, JSON, body).id == expected
    request = predict.parse_predict_request(model, {**JSON, b"mlscale-id": b"h"}, json.dumps(PENGUIN).encode())
    assert request.id == "h"
    both = json.dumps({"inputs": [{**PENGUIN, "id": "p"}, {**PENGUIN, "id": 7}]}).encode()
    assert list(predict.parse_predict_request(model, JSON, both).ids) == ["p", "7"]
    for ids in (("p", "p"), ("p", None)):
        body = json.dumps({"inputs": [{**PENGUIN, "id": id_} for id_ in ids]}).encode()
        with pytest.raises(Refused, match="2 samples need as many ids"):
            predict.parse_predict_request(model, JSON, body)


def test_a_column_may_be_called_inputs_or_id(tmp_path: Path) -> None:
    from tests.made_servables import make_table_servable

    rows = {"inputs": np.array([1.0, 2.0, 3.0]), "id": ["a", "b", "a"]}
    model = load_model(make_table_servable(tmp_path / "odd", rows), name="odd", version="v", threads=1, max_batch=4)
    row = {"inputs": 2.5, "id": "b"}
    request = predict.parse_predict_request(model, JSON, json.dumps({"inputs": [row], "id": "mine"}).encode())
    assert request.id == "mine"
    assert ask(model, JSON, json.dumps({"inputs": [row]}).encode()) == expect(model, [row])
