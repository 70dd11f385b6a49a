"""What a server answers to a raw sample is what `predict_samples` of the same servable gives, bitwise: every task type,
awkward samples, and the bad ones refused for the encoder's reason."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import predict_route as predict
from mlscale.serve.protocol import v2, v2_metadata, v2_tensors
from mlscale.serve.protocol.refused_bodies import describe_large_body
from mlscale.serve.served_model import ServedModel, load_model
from tests import made_servables
from tests.made_servables import PENGUIN, make_servables
from tests.serving import RAW, serving

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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_servables(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, ServedModel]:
    return {
        name: load_model(folder, name=name, version=f"{name}:v1", threads=1, max_batch=4)
        for name, folder in folders.items()
    }


def photographs() -> list[tuple[bytes, bytes]]:
    """Content types and images: every format, odd sizes, colours and grey."""
    made = []
    kinds = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tiff"}
    for number, (kind, name) in enumerate({**kinds, "JPEG2000": "jp2", "PPM": "x-portable-pixmap"}.items()):
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


@pytest.mark.parametrize(
    ("name", "headers", "body", "status", "reason"),
    [
        (
            "penguins",
            JSON,
            {"island": "Dream"},
            400,
            "the row can't be used: it lacks the columns 'bill_length_mm', '",
        ),
        (
            "penguins",
            JSON,
            {"inputs": [PENGUIN, {**PENGUIN, "body_mass_g": "heavy"}]},
            400,
            "inputs[1] can't be used: body_mass_g is 'heavy', no number",
        ),
        ("penguins", JSON, {"inputs": [PENGUIN, {"Island": "Dream"}]}, 400, "inputs[1] can't be used: it lacks the"),
        (
            "penguins",
            JSON,
            {"inputs": [PENGUIN, 3]},
            400,
            "inputs[1] can't be used: it is a number, and the model takes rows",
        ),
        ("penguins", JSON, {"inputs": [PENGUIN], "sex": "male"}, 400, "a row with a column of the name inputs is sent"),
        ("penguins", JSON, {"inputs": []}, 400, "no samples in the request"),
        ("penguins", JSON, [PENGUIN], 400, 'send {"<column>": <value>, …} or {"inputs": [row, …]}'),
        ("penguins", JSON, {"inputs": [PENGUIN] * 1025}, 413, "at most 1024 samples"),
        ("penguins", TEXT, b"Dream", 415, "can't read text/plain: penguins takes rows"),
        (
            "penguins",
            {b"content-type": b"text/csv"},
            b"island\nDream",
            415,
            "…}: curl -H 'Content-Type: application/json' -d '{",
        ),
        ("penguins", {b"content-type": b"image/png"}, b"x", 415, "penguins takes no image files, but rows"),
        ("penguins", {b"content-type": b"application/octet-stream"}, b"x", 415, "penguins takes rows"),
        ("reviews", TEXT, b"", 400, "the text can't be used: it is empty"),
        ("reviews", JSON, {"inputs": ["a", ""]}, 400, "inputs[1] can't be used: it is empty"),
        ("reviews", JSON, "\ud800", 400, "character 1 is half of a surrogate pair"),
        ("reviews", JSON, {"inputs": [[1, 2]]}, 400, "inputs[0] can't be used: it is a list, not a text"),
        ("reviews", JSON, b"great", 400, "a text by itself is sent with 'Content-Type: text/plain'"),
        ("reviews", {b"content-type": b"text/plain; charset=klingon"}, b"x", 415, "send UTF-8"),
        ("reviews", {b"content-type": b"text/plain; charset=rot13"}, b"x", 415, "send UTF-8"),
        (
            "reviews",
            {b"content-type": b"text/plain; charset=utf-8"},
            b"ab\xffc",
            400,
            "byte 3 of the text is not utf-8",
        ),
        ("photos", JSON, {"image": "photo.jpeg"}, 400, "an image file is sent as it is, curl -H 'Content-Type: image/"),
        (
            "photos",
            JSON,
            {"inputs": ["aGVsbG8="]},
            400,
            "an image file is sent as it is, curl -H 'Content-Type: image/",
        ),
        (
            "photos",
            {b"content-type": b"image/jpeg"},
            b"",
            400,
            "this image can't be decoded: it is empty; send the bytes of a file, curl",
        ),
        ("penguins", JSON, b"\x80\1\2", 400, "the body is not JSON: it is binary, not UTF-8 text (byte 1)"),
        ("reviews", JSON, b'"a\xff"', 400, "it is binary, not UTF-8 text (byte 3); a text by itself is sent"),
        ("reviews", JSON, b"[" * 5000, 400, "the body is not JSON: it is nested too deep"),
        ("sums", JSON, {"inputs": [{"left": [1, 2], "right": [1, float("nan")]}]}, 400, "value 2 is not a finite"),
        # No image, though it begins with the letters of a bitmap's first bytes.
        ("reviews", JSON, b"BMW is a make", 400, "the body is not JSON: Expecting value: line 1"),
        # The first bytes of a format that is not decoded, sent without its type.
        ("photos", JSON, b"\0\0\0\x18ftypheic\0\0\0\0", 400, "; an image file is sent as it is, curl -H"),
        ("tales", TEXT, b"a\0b", 400, "the text can't be used: byte 2 is zero, which ends a document"),
        ("photos", {b"content-type": b"image/png"}, b"x", 400, "this image can't be decoded"),
        ("photos", TEXT, b"x", 415, "can't read text/plain: photos takes images"),
        ("sums", JSON, {"inputs": [{"left": [1, 2]}]}, 400, "inputs[0] lacks the tensor 'right'"),
        ("sums", JSON, {"inputs": [{"left": [1], "right": [1, 2]}]}, 400, "the batch is (1, 1)"),
        ("sums", JSON, {"inputs": [{"left": ["1", "2"], "right": [1, 2]}]}, 400, "no list of numbers"),
        ("sums", {b"content-type": b"image/png"}, b"x", 415, "sums takes no image files"),
    ],
)
def test_what_can_not_be_used(
    models: dict[str, ServedModel], name: str, headers: dict[bytes, bytes], body: Any, status: int, reason: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refused) as refused:
        predict.parse_predict_request(models[name], headers, content)
    assert (refused.value.status, reason in refused.value.message) == (status, True), refused.value.message


def test_a_column_may_be_called_inputs_or_id(tmp_path: Path) -> None:
    from tests.made_servables import make_table_servable

    rows = {"inputs": np.array([1.0, 2.0, 3.0]), "id": ["a", "b", "a"]}
    model = load_model(make_table_servable(tmp_path / "odd", rows), name="odd", version="v", threads=1, max_batch=4)
    row = {"inputs": 2.5, "id": "b"}
    request = predict.parse_predict_request(model, JSON, json.dumps({"inputs": [row], "id": "mine"}).encode())
    assert request.id == "mine"
    assert ask(model, JSON, json.dumps({"inputs": [row]}).encode()) == expect(model, [row])


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


def test_v2_takes_what_a_client_has_packed(models: dict[str, ServedModel]) -> None:
    model = models["penguins"]
    packed = model.servable.pack_samples(ROWS[:3]).tensors
    numbers = {"name": "numbers", "datatype": "FP64", "shape": [3, 2], "data": packed["numbers"].tolist()}
    texts = {"name": "texts", "datatype": "BYTES", "shape": [3, 2], "data": packed["texts"].tolist()}
    found = infer(model, [numbers, texts])
    logits = model.servable.compute(packed)["logits"]
    assert np.array_equal(found["logits"].astype(np.float32), logits)
    assert list(found) == ["logits", "probabilities", "label"]
    assert found["label"].tolist() == model.servable.predict_samples(ROWS[:3]).columns["predicted"]
    content = [packed["numbers"].tobytes(), encode_texts([text.encode() for text in packed["texts"].ravel()])]
    for entry, part in ((numbers, content[0]), (texts, content[1])):
        entry["parameters"] = {"binary_data_size": len(part)}
        del entry["data"]
    for order in ((0, 1), (1, 0)):
        again = infer(model, [(numbers, texts)[n] for n in order], b"".join(content[n] for n in order))
        assert np.array_equal(again["logits"], found["logits"])


def test_v2_takes_images_and_texts_as_they_are(models: dict[str, ServedModel]) -> None:
    files = [content for _, content in photographs()][:4]
    tail = encode_texts(files)
    for name, output in (("photos", "logits"), ("tags", "logits"), ("masks", "logits")):
        entry = {
            "name": "image",
            "datatype": "BYTES",
            "shape": [4, 1],
            "parameters": {"binary_data_size": len(tail)},
        }
        found = infer(models[name], [entry], tail)
        packed = models[name].servable.pack_samples(files)
        assert np.array_equal(found[output].astype(np.float32), models[name].servable.compute(packed.tensors)[output])
    raw = [text if isinstance(text, bytes) else text.encode() for text in TEXTS[:4]]
    entry = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [4],
        "parameters": {"binary_data_size": len(encode_texts(raw))},
    }
    found = infer(models["reviews"], [entry], encode_texts(raw))
    assert found["label"].tolist() == models["reviews"].servable.predict_samples(raw).columns["predicted"]
    entry = {"name": "text", "datatype": "BYTES", "shape": [3], "data": DOCUMENTS}
    found = infer(models["tales"], [entry])
    assert found["tokens"].tolist() == [len(document.encode()) + 1 for document in DOCUMENTS]


NUMBERS = {"name": "numbers", "datatype": "FP64", "shape": [1, 2], "data": [1, 2]}
NAMES = {"name": "texts", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "inputs", "tail", "reason"),
    [
        (
            "penguins",
            [NUMBERS],
            b"",
            "expected 2 inputs but got 1 inputs for model 'penguins'. Got input(s) ['numbers'], but missing required "
            "input(s) ['texts']. Please provide all required input(s).",
        ),
        ("penguins", [NUMBERS, NAMES, NAMES], b"", "input 'texts' already exists in request"),
        (
            "penguins",
            [NUMBERS, {**NAMES, "shape": [2, 2], "data": ["a"] * 4}],
            b"",
            "input 'texts' batch size does not match other inputs for 'penguins'",
        ),
        ("penguins", [NUMBERS, {**NAMES, "data": [1, 2]}], b"", "the data of input 'texts' is ragged, or no list"),
        ("penguins", [NUMBERS, {**NAMES, "data": ["a", "\ud800"]}], b"", "the data of input 'texts' is not UTF-8"),
        ("penguins", [NUMBERS, {**NAMES, "data": ["a"]}], b"", "Unable to parse 'data': Shape does not match"),
        ("reviews", [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["x"]}], b"", "unexpected inference"),
        ("photos", [{"name": "image", "datatype": "UINT8", "shape": [1], "data": [1]}], b"", "expects 'BYTES'"),
        (
            "photos",
            [{"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": 9}}],
            b"\5\0\0\0abcde",
            "the 2 elements of input 'image' for model 'photos' do not end with its data",
        ),
        (
            "photos",
            [{"name": "image", "datatype": "BYTES", "shape": [9], "parameters": {"binary_data_size": 36}}],
            bytes(36),
            "a request has at most 4 inputs of the type BYTES for 'photos'",
        ),
        (
            "photos",
            [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}}],
            b"\1\0\0\0x",
            "this image can't be decoded",
        ),
    ],
)
def test_v2_refuses(
    models: dict[str, ServedModel], name: str, inputs: list[dict[str, Any]], tail: bytes, reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        infer(models[name], inputs, tail)
    assert reason in refused.value.message


def test_what_no_sample_is_packed_to_is_refused(models: dict[str, ServedModel]) -> None:
    """A client that packs by itself gets no answer to a number that float32 does not have, or to no text at all."""

    def refuse(name: str, **tensors: Any) -> str:
        types = {"f": "FP64", "u": "UINT8", "i": "INT64", "O": "BYTES"}
        entries = [
            {"name": key, "datatype": types[values.dtype.kind], "shape": [*values.shape], "data": values.tolist()}
            for key, values in tensors.items()
        ]
        with pytest.raises(Refused) as refused:
            infer(models[name], entries)
        assert refused.value.status == 400
        return refused.value.message

    texts = np.array([["Dream", "male"]] * 2, object)
    assert refuse("penguins", numbers=np.array([[np.nan, 1], [40.0, 1e300]]), texts=texts).startswith(
        "row 1 of the batch can't be used: body_mass_g is 1e+300, and "
    )
    for huge in (np.inf, -np.inf):
        found = refuse("penguins", numbers=np.array([[huge, 1], [40, 1e300]]), texts=texts)
        assert found == "row 0 of the batch can't be used: bill_length_mm is infinite, not a finite number"
    length = models["reviews"].servable.inputs[0].shape[1]
    content = np.full((1, length), 65, np.uint8)
    for count in (0, -3, length + 1):
        found = refuse("reviews", bytes=content, lengths=np.array([count]))
        assert found == f"row 0 of the batch can't be used: its length is {count}, not 1 to {length}"
    length = models["tales"].servable.inputs[0].shape[1] - 1
    windows = np.full((2, length + 1), 65, np.uint8)
    for first, last in ((5, 3), (0, 0), (-1, length), (0, length + 1), (2**62, -1)):
        found = refuse("tales", bytes=windows, scored=np.array([[0, length], [first, last]]))
        assert f"row 1 of the batch can't be used: it is scored from {first} to {last}, not two positions" in found


def test_what_a_sample_is_packed_to_is_not_refused(models: dict[str, ServedModel]) -> None:
    """Missing and huge numbers that float32 has, cut texts, texts of the whole length, documents of many windows."""
    low, high = next(
        column.limits
        for column in models["penguins"].servable.encoder.columns  # type: ignore[attr-defined]
        if column.name == "body_mass_g"
    )
    rows = [*ROWS, {**PENGUIN, "body_mass_g": low}, {**PENGUIN, "body_mass_g": high}]
    length = models["reviews"].servable.inputs[0].shape[1]
    texts = [*TEXTS, "a" * length, "a"]
    context = models["tales"].servable.inputs[0].shape[1] - 1
    documents = [*DOCUMENTS, *("a" * size for size in range(1, 4 * context))]
    sums = [{"left": [3e38, -3e38], "right": [1.0, 0.0]}]
    for name, samples in {"penguins": rows, "reviews": texts, "tales": documents, "sums": sums}.items():
        encoder = models[name].servable.encoder
        packed = encoder.pack_samples(samples)
        assert not packed.bad
        assert encoder.find_bad_rows(packed.tensors) == {}, name
    wrong = TensorEncoder.from_shape((2,), "float32").find_bad_rows(
        {"input": np.array([[1, 2], [3, np.inf], [np.nan, 1]], np.float32)}
    )
    assert wrong == {1: "value 2 is not a finite number", 2: "value 1 is not a finite number"}


def test_v2_metadata_names_the_columns(models: dict[str, ServedModel]) -> None:
    document = v2_metadata.build_model_metadata(models["penguins"])
    assert document["inputs"] == [
        {"name": "numbers", "datatype": "FP64", "shape": [-1, 2]},
        {"name": "texts", "datatype": "BYTES", "shape": [-1, 2]},
    ]
    assert document["parameters"]["columns"] == {
        "numbers": ["bill_length_mm", "body_mass_g"],
        "texts": ["island", "sex"],
    }
    assert [column["name"] for column in document["parameters"]["raw_input"]["columns"]] == list(PENGUIN)
    assert v2_metadata.build_model_metadata(models["tales"])["parameters"]["raw_tensor"] == {
        "name": "text",
        "datatype": "BYTES",
        "shape": [-1],
    }
    config = v2_metadata.build_model_configuration(models["penguins"])
    assert [entry["data_type"] for entry in config["input"]] == ["TYPE_FP64", "TYPE_STRING"]
    assert [entry["dims"] for entry in v2_metadata.build_model_configuration(models["tales"])["output"]] == [[1], [1]]


def test_v2_metadata_names_classes_targets_and_what_a_tensor_is(models: dict[str, ServedModel]) -> None:
    def describe(name: str) -> dict[str, Any]:
        parameters: dict[str, Any] = v2_metadata.build_model_metadata(models[name])["parameters"]
        return parameters

    assert describe("penguins")["labels"] == ["Adelie", "Chinstrap", "Gentoo"]
    assert list(describe("penguins")["outputs"]) == ["logits", "probabilities", "label"]
    assert describe("tags")["labels"] == ["sea", "sky", "sand"]
    assert describe("mass")["targets"] == [{"name": "body_mass_g", "unit": "g"}]
    assert "for each pixel" in describe("masks")["outputs"]["logits"]
    assert "POST /predict" in describe("masks")["outputs"]["logits"]
    assert list(describe("tales")["outputs"]) == ["nats", "tokens"]
    assert "outputs" not in describe("sums")


def test_what_is_not_finite_is_not_answered(models: dict[str, ServedModel]) -> None:
    body = json.dumps({"inputs": {"left": [1e38, 1], "right": [3e38, 1]}}).encode()
    request = predict.parse_predict_request(models["sums"], JSON, body)
    outputs = models["sums"].compute(request.samples)
    with pytest.raises(Refused, match="no finite numbers"):
        predict.encode_predict_response(models["sums"], request, ["a"], outputs)


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "image/heic"])
def test_an_image_in_a_form_is_told_how_to_be_sent(models: dict[str, ServedModel], kind: str) -> None:
    with pytest.raises(Refused, match="an image is the body itself, curl -H 'Content-Type: image/jpeg'") as refused:
        predict.parse_predict_request(models["photos"], {b"content-type": kind.encode()}, b"--x")
    assert refused.value.status == 415


@pytest.mark.parametrize(
    ("name", "kind", "status", "reason"),
    [
        ("photos", b"image/heic", 415, "can't read image/heic: an image is the body itself, curl -H"),
        ("photos", b"multipart/form-data", 415, "can't read multipart/form-data: an image is the body itself"),
        ("photos", b"application/json", 413, "an image file is sent as it is, curl -H"),
        ("penguins", b"text/csv", 415, "can't read text/csv: penguins takes rows, such as"),
        ("penguins", b"text/plain", 415, "can't read text/plain: penguins takes rows"),
        ("penguins", b"application/json", 413, "send fewer samples in a request"),
        ("reviews", b"text/html", 415, "can't read text/html: reviews takes texts, such as text/plain"),
        ("reviews", b"application/json", 413, "a long text is sent by itself, with 'Content-Type: text/plain'"),
        ("sums", b"application/octet-stream", 415, "can't read application/octet-stream: sums takes numbers"),
    ],
)
def test_a_large_body_of_another_type_is_refused_for_its_type(
    models: dict[str, ServedModel], name: str, kind: bytes, status: int, reason: str
) -> None:
    refused = describe_large_body(models[name], kind, 3_000_000, 380_000, 64)
    assert (refused.status, reason in refused.message) == (status, True), refused.message


def test_the_row_and_the_column_of_a_huge_number_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Weights of two: they make infinity of a feature over half of float32's largest number.
    monkeypatch.setattr(made_servables, "_rng", SimpleNamespace(normal=lambda size: np.full(size, 2.0)))
    model = load_model(make_servables(tmp_path)["penguins"], name="penguins", version="v1", threads=1, max_batch=4)

    def answer(body: bytes) -> None:
        request = predict.parse_predict_request(model, JSON, body)
        outputs = model.compute(request.samples)
        assert predict.count_numbers(request, outputs) == 0
        predict.encode_predict_response(model, request, ["a", "b"], outputs)

    def refuse(number: str, *, alone: bool = False) -> str:
        row = json.dumps(PENGUIN)
        huge = row.replace(str(PENGUIN["bill_length_mm"]), number)
        assert huge != row
        body = huge if alone else f'{{"inputs": [{row}, {huge}]}}'
        with pytest.raises(Refused) as refused:
            answer(body.encode())
        return refused.value.message

    # Of numbers that float32 has a layer of the model makes infinity.
    found = refuse("1.5e39")
    assert found == (
        "the model gives no finite numbers for inputs[1]: bill_length_mm is 1.5e+39, far outside of what training had"
    )
    assert "for these inputs: bill_length_mm is 1.5e+39" in refuse("1.5e39", alone=True)
    assert refuse("1e300") == (
        "inputs[1] can't be used: bill_length_mm is 1e+300, and 36.7 to 50 in training: float32, in which models "
        "compute, does not reach so far"
    )
    for number in ("1e999", "9" * 5000, "1" + "0" * 4400):
        assert refuse(number) == "inputs[1] can't be used: bill_length_mm is infinite, not a finite number"


def test_a_document_that_is_too_long_states_its_length_and_the_limit(
    folders: dict[str, Path], tmp_path: Path, models: dict[str, ServedModel]
) -> None:
    encoder = models["tales"].servable.encoder
    assert isinstance(encoder, DocumentEncoder)
    for size in range(1, 60):
        packed = encoder.pack_samples(["x" * size])
        windows = len(packed.tensors["bytes"])
        assert (encoder.count_windows(size), encoder.count_bytes(packed.tensors, 1)) == (windows, size)
        assert encoder.compute_longest(windows) >= size > (encoder.compute_longest(windows - 1) if windows > 1 else 0)
    with serving(tmp_path, folders["tales"], "max_batch=4", "max_queue=10") as server:
        most = encoder.compute_longest(10)
        assert server.ask("/predict", b"x" * most, {"Content-Type": "text/plain"}).status == 200
        reply = server.ask("/predict", json.dumps("x" * (most + 1)).encode())
        assert (reply.status, reply.json["error"]) == (
            400,
            f"the text has {most + 1} bytes, which are read in 11 windows of 8; this server takes 10 windows in a "
            f"request, {most} bytes of one document: send it in parts, or start the server with max_queue=11",
        )
        reply = server.ask("/predict", b"x" * 1000, {"Content-Type": "text/plain"})
        assert reply.status == 413
        assert "it has 1000: send the document in parts, or start the server with max_queue=250" in reply.json["error"]
        assert server.stop() == 0


def test_over_http_with_events(folders: dict[str, Path], models: dict[str, ServedModel], tmp_path: Path) -> None:
    with serving(tmp_path, folders["penguins"], "sample_share=1") as server:
        reply = server.ask("/predict", {**PENGUIN, "id": "order-17"})
        assert (reply.status, reply.json["predictions"][0]["id"]) == (200, "order-17")
        assert server.ask("/labels", {"id": "order-17", "label": "Gentoo"}).json == {"accepted": 1}
        assert server.ask("/predict", {"inputs": [PENGUIN] * 900}).status == 200  # in the process
        assert server.stop() == 0
    from mlscale.events.store import EventStore

    events = EventStore(tmp_path / "events").read("penguins", samples=True)
    assert len(events.id) == 901
    assert list(events.inputs) == list(PENGUIN)
    assert [{name: row[name] for name in PENGUIN} for row in events.samples()] == [PENGUIN] * 901
    assert EventStore(tmp_path / "events").joined("penguins").truth.tolist() == ["Gentoo"]
    assert len(min(events.id[1:], key=len)) >= 24


def test_over_http_masks_and_files(folders: dict[str, Path], models: dict[str, ServedModel], tmp_path: Path) -> None:
    with serving(tmp_path, folders["masks"]) as server:
        assert server.ask("/predict", b"x", {"Content-Type": "text/plain"}).status == 415
        assert server.ask("/predict", b"x", RAW).status == 400
        for kind, content in photographs():
            reply = server.ask("/predict", content, {"Content-Type": kind.decode()})
            (answer,) = reply.json["predictions"]
            del answer["id"]
            assert [answer] == expect(models["masks"], [content])
        files = encode_texts([content for _, content in photographs()[:3]])
        entry = {"name": "image", "datatype": "BYTES", "shape": [3], "parameters": {"binary_data_size": len(files)}}
        head = json.dumps({"inputs": [entry]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        reply = server.ask("/v2/models/masks/infer", head + files, headers)
        assert reply.json["outputs"][0]["shape"] == [3, 3, 8, 8]
        reply = server.ask("/labels", {"id": "a", "label": "b"})
        assert (reply.status, reply.json["error"][:16]) == (400, "a label is a PNG")
        assert server.stop() == 0
        assert "bug in mlscale" not in server.said
