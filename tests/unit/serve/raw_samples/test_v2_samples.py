"""Raw and packed samples in V2's requests give what the servable itself gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.serve.http.request_error import Refused
from mlscale.serve.served_model import ServedModel
from tests.made_servables import PENGUIN
from tests.unit.serve.raw_samples.raw_requests import DOCUMENTS, ROWS, TEXTS, encode_texts, infer, photographs


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


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        ("masks", "logits", "output 'logits' has no score for each class: request it without 'classification'"),
        (
            "photos",
            "label",
            "output 'label' has no score for each class, unlike 'logits', 'probabilities': request it without "
            "'classification'",
        ),
    ],
)
def test_v2_names_the_outputs_that_can_be_classified(
    models: dict[str, ServedModel], name: str, output: str, message: str
) -> None:
    tail = encode_texts([photographs()[0][1]])
    entry = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(tail)}}
    with pytest.raises(Refused) as refused:
        infer(models[name], [entry], tail, outputs=[{"name": output, "parameters": {"classification": 2}}])
    assert (refused.value.status, refused.value.message) == (400, message)


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
