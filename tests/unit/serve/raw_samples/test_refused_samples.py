"""Samples that can't be used are refused for the encoder's reason, with what to send instead."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import image_input as images
from mlscale.serve.protocol import predict_route as predict
from mlscale.serve.protocol.predict_route import describe_large_body
from mlscale.serve.served_model import ServedModel
from tests.made_servables import PENGUIN
from tests.unit.serve.raw_samples.raw_requests import JSON, TEXT


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
            "can't read text/csv: penguins takes rows",
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
        ("reviews", {b"content-type": b"text/plain; charset="}, b"x", 415, "the charset in the Content-Type is empty"),
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
        ("reviews", JSON, b"[" * 200_000, 400, "the body is not JSON: it is nested too deep"),
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


@pytest.mark.parametrize(
    ("name", "kind", "status", "reason"),
    [
        ("photos", b"image/heic", 415, "can't read image/heic: photos takes images, such as image/jpeg; see GET /"),
        ("photos", b"multipart/form-data", 415, "can't read multipart/form-data: photos takes images"),
        ("photos", b"application/json", 413, "the body is over 380000 bytes, it has 3000000"),
        ("penguins", b"text/csv", 415, "can't read text/csv: penguins takes rows, such as"),
        ("penguins", b"text/plain", 415, "can't read text/plain: penguins takes rows"),
        ("penguins", b"application/json", 413, "the body is over 380000 bytes, it has 3000000"),
        ("reviews", b"text/html", 415, "can't read text/html: reviews takes texts, such as text/plain"),
        ("reviews", b"application/json", 413, "the body is over 380000 bytes, it has 3000000"),
        ("reviews", b"text/plain", 413, "it has 3000000"),
        ("sums", b"application/octet-stream", 415, "can't read application/octet-stream: sums takes numbers"),
    ],
)
def test_a_large_body_of_another_type_is_refused_for_its_type(
    models: dict[str, ServedModel], name: str, kind: bytes, status: int, reason: str
) -> None:
    refused = describe_large_body(models[name], kind, 3_000_000, 380_000)
    assert (refused.status, reason in refused.message) == (status, True), refused.message


def test_an_image_over_the_limit_is_refused_by_its_header_before_it_waits(models: dict[str, ServedModel]) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")  # 50 KB, 400 million pixels
    with pytest.raises(Refused, match="20000×20000 pixels are more than") as refused:
        images.is_large(models["photos"], file.getvalue())
    assert refused.value.status == 413
