"""Encoders as documents: what is written is read, and what is corrupt or edited is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from mlscale.contracts import load_schema
from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder, TensorSpec, compute_definition_digest
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.stored_encoder import parse_encoder, read_encoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.errors import MLScaleError
from tests.unit.data.encoders.random_tables import fit_random

IMAGE = ImageEncoder((3, 8, 6), "uint8", True, 10_000, (1.5, 2.0, 0.1), (1.0, 2.0, 3.0), DECODE_VERSION)
TENSORS = TensorEncoder((TensorSpec("x", "float32", (2,)), TensorSpec("ids", "int64", (3,))))
ENCODERS = [fit_random(np.random.default_rng(0)), IMAGE, TextEncoder(12), DocumentEncoder(12), TENSORS]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: str(encoder.kind))
def test_what_is_written_validates_and_is_read(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "encoder.json"
    path.write_text(json.dumps(encoder.to_document()))
    jsonschema.Draft202012Validator(load_schema("encoder")).validate(encoder.to_document())
    read = read_encoder(path)
    assert read == encoder
    assert (read.digest, read.inputs) == (encoder.digest, encoder.inputs)
    assert read.describe_raw_input() == json.loads(json.dumps(encoder.describe_raw_input()))


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: str(encoder.kind))
def test_an_edited_document_is_refused(encoder: Encoder) -> None:
    document = encoder.to_document()
    document["settings"] = {**document["settings"], "more": 1}
    with pytest.raises(MLScaleError, match="not the one that was written"):
        parse_encoder(document, where="x")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("sound", {}),
        ("text", {"length": 1 << 40, "offset": 1, "padding": 0, "unit": "byte"}),
        ("text", {"length": 8, "offset": 1, "padding": 0, "unit": "word"}),
        ("table", {"columns": [{"type": "category", "name": "a", "values": ["x", "x"], "of_numbers": False}]}),
        ("table", {"columns": [{"type": "number", "name": "a"}]}),
        ("table", {}),
        ("image", {**IMAGE.describe_settings(), "decode_version": DECODE_VERSION - 1}),
        ("tensor", {"tensors": [{"name": "x", "dtype": "no such", "shape": [1]}]}),
        ("tensor", []),
    ],
)
def test_settings_that_make_no_encoder_are_refused(kind: str, settings: Any) -> None:
    document = {"format": "mlscale/encoder/1", "kind": kind, "settings": settings}
    document["digest"] = compute_definition_digest(kind, settings)
    with pytest.raises(MLScaleError, match="the encoder can't be read"):
        parse_encoder(document, where="x")


def test_a_file_that_is_no_document_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]", "{}"):
        (tmp_path / "encoder.json").write_text(text)
        with pytest.raises(MLScaleError):
            read_encoder(tmp_path / "encoder.json")


def test_reading_one_imports_neither_torch_nor_pyarrow() -> None:
    code = (
        "import sys; from mlscale.data.encoders.stored_encoder import parse_encoder; "
        "heavy = ('torch', 'pyarrow', 'PIL', 'pytorch_lightning', 'webdataset'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
