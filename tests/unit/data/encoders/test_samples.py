"""Images, texts and tensors: what is encoded, and the reason of each that can't be."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.decoding.image_decoder import decode_image
from mlscale.data.encoders.document_encoder import SCORED, DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, TensorSpec
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder


def build_image_encoder(shape: tuple[int, int, int] = (3, 8, 6), dtype: str = "uint8", *, resize: bool = True) -> Any:
    return ImageEncoder(shape, dtype, resize, 10_000, (), (), DECODE_VERSION)


def save(size: tuple[int, int], form: str = "PNG", *, orientation: int = 1, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).convert(mode).save(file, form, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_an_image_is_decoded_turned_resized_and_cropped(form: str) -> None:
    content = save((37, 21), form)
    encoded = build_image_encoder().encode_samples([content]).tensors[INPUT]
    assert (encoded.shape, encoded.dtype) == ((1, 3, 8, 6), np.uint8)
    assert np.array_equal(encoded[0], decode_image(content, (8, 6), 3))


def test_orientation_is_applied() -> None:
    upright, turned = (build_image_encoder((3, 21, 37), resize=False) for _ in range(2))
    content = save((37, 21), orientation=3)
    encoded = turned.encode_samples([content]).tensors[INPUT][0]
    plain = upright.encode_samples([save((37, 21))]).tensors[INPUT][0]
    assert np.array_equal(encoded, plain[:, ::-1, ::-1])


@pytest.mark.parametrize(
    ("encoder", "raw", "reason"),
    [
        (build_image_encoder(), b"GIF89a", "header is corrupt"),
        (build_image_encoder(), save((37, 21))[:-30], ""),
        (build_image_encoder(), save((200, 100)), "more than 10,000"),
        (build_image_encoder(), "a text", "it is a text, and the model takes images"),
        (build_image_encoder(resize=False), save((37, 21)), "it has 37×21 pixels, the model takes 6×8"),
        (build_image_encoder((1, 8, 6)), save((37, 21)), "it has colours"),
        (build_image_encoder(), np.zeros((3, 9, 6), np.uint8), "it has 6×9 pixels"),
        (build_image_encoder(), np.full((3, 8, 6), 0.5, np.float32), "it has values that uint8 does not have"),
        (TextEncoder(4), "", "it is empty"),
        (TextEncoder(4), "a\ud800", "character 2 is half of a surrogate pair"),
        (TextEncoder(4), 7, "it is a number, not a text"),
        (DocumentEncoder(4), "a\0b", "byte 2 is zero, which ends a document"),
        (DocumentEncoder(4), "", "it is empty"),
        (TensorEncoder.from_shape((2,), "float32"), [1, 2, 3], "it has the shape (3,), and the model takes (2,)"),
        (TensorEncoder.from_shape((2,), "float32"), [1, np.nan], "value 2 is not a finite number"),
        (TensorEncoder.from_shape((2,), "float32"), b"ab", "it is a file, and the model takes (2,)"),
        (TensorEncoder.from_shape((2,), "int64"), [1.5, 2], "it has values that int64 does not have"),
        (TensorEncoder.from_shape((2,), "uint8"), [1, 256], "it has values that uint8 does not have"),
        (TensorEncoder.from_shape((1,), "float32"), ["a"], "no numbers"),
        (TensorEncoder((TensorSpec("a", "int64", ()), TensorSpec("b", "int64", ()))), {"a": 1}, "lacks the tensor 'b'"),
    ],
)
def test_the_reason_of_a_bad_sample(encoder: Any, raw: Any, reason: str) -> None:
    encoded = encoder.encode_samples([raw])
    assert list(encoded.bad) == [0]
    assert reason in encoded.bad[0]


def test_texts_are_bytes_plus_one_whatever_they_hold() -> None:
    texts = ["aé", b"\xff\xfe" * 5, "🐧", "a\0b", b"x\xff".decode("utf-8", "surrogateescape")]
    encoded = TextEncoder(4).encode_samples(texts)
    assert not encoded.bad
    assert encoded.tensors[INPUT].tolist() == [
        [98, 196, 170, 0],
        [256, 255, 256, 255],
        [241, 160, 145, 168],
        [98, 1, 99, 0],
        [121, 256, 0, 0],
    ]


def test_a_document_is_read_in_windows_that_overlap_by_half() -> None:
    encoded = DocumentEncoder(4).encode_samples(["aé", "", "abcdefg"])
    assert list(encoded.bad) == [1]
    assert encoded.counts is not None
    assert encoded.counts.tolist() == [1, 0, 3]
    assert encoded.tensors[INPUT].tolist() == [
        [0, 97, 195, 169, 0],
        [0, 97, 98, 99, 100],
        [98, 99, 100, 101, 102],
        [100, 101, 102, 103, 0],
    ]
    assert encoded.tensors[SCORED].tolist() == [[0, 4], [0, 4], [2, 4], [2, 4]]


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 2, 6, 7, 8, 50])
def test_each_byte_of_a_document_and_its_end_count_once(length: int, size: int) -> None:
    content = bytes(range(1, size + 1))
    encoded = DocumentEncoder(length).encode_samples([content])
    scored = [
        row[first + 1 : last + 1].tolist()
        for row, (first, last) in zip(encoded.tensors[INPUT], encoded.tensors[SCORED].tolist(), strict=True)
    ]
    assert [token for tokens in scored for token in tokens] == [*content, 0]


def test_arrays_are_taken_as_they_are() -> None:
    stored = np.random.default_rng(0).normal(size=(1, 8, 6)).astype(np.float32)
    file = io.BytesIO()
    np.save(file, stored)
    encoder = build_image_encoder((1, 8, 6), "float32")
    for raw in (stored, stored[0], stored.astype(np.float64), file.getvalue()):
        assert np.array_equal(encoder.encode_samples([raw]).tensors[INPUT][0], stored)


def test_several_tensors_by_name() -> None:
    encoder = TensorEncoder((TensorSpec("a", "int64", ()), TensorSpec("b", "float32", (2,))))
    encoded = encoder.encode_samples([{"a": 3, "b": [1, 2]}, {"a": 4, "b": np.array([0.5, 1])}])
    assert encoded.tensors["a"].tolist() == [3, 4]
    assert encoded.tensors["b"].tolist() == [[1, 2], [0.5, 1]]
