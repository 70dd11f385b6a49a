"""The real tritonclient sends tensors and raw samples to a server, and reads its metadata."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient import http

from mlscale.export.servable import load
from tests.made_servables import PENGUIN, make_servables
from tests.serving import Server, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_servables(tmp_path_factory.mktemp("made"))


def infer(server: Server, name: str, tensors: dict[str, tuple[np.ndarray[Any, Any], str]], *, binary: bool) -> Any:
    """Send tensors by their names with their datatypes; the result."""
    client = http.InferenceServerClient(server.url.removeprefix("http://"))
    assert client.is_model_ready(name)
    inputs = []
    for tensor, (values, datatype) in tensors.items():
        given = http.InferInput(tensor, list(values.shape), datatype)
        given.set_data_from_numpy(values, binary_data=binary)
        inputs.append(given)
    return client.infer(name, inputs)


@pytest.mark.parametrize("binary", [True, False])
def test_a_table(folders: dict[str, Path], tmp_path: Path, binary: bool) -> None:
    servable = load(folders["penguins"])
    packed = servable.pack_samples([PENGUIN, {**PENGUIN, "island": "Größe 🐧"}]).tensors
    with serving(tmp_path, folders["penguins"]) as server:
        tensors = {"numbers": (packed["numbers"], "FP64"), "texts": (packed["texts"], "BYTES")}
        result = infer(server, "penguins", tensors, binary=binary)
        assert np.array_equal(result.as_numpy("logits"), servable.compute(packed)["logits"])
        assert [text.decode() for text in result.as_numpy("label")] == servable.predict_samples(
            [PENGUIN, {**PENGUIN, "island": "Größe 🐧"}]
        ).columns["predicted"]


def test_images_and_texts_as_they_are(folders: dict[str, Path], tmp_path: Path) -> None:
    files = []
    for size in ((20, 31), (64, 9), (8, 8)):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)).save(
            file := io.BytesIO(), "PNG"
        )
        files.append(file.getvalue())
    texts = ["Größe 🐧".encode(), b"\xff\0 not UTF-8"]
    for name, tensor, samples in (("photos", "image", files), ("reviews", "text", texts)):
        array = np.empty(len(samples), object)
        array[:] = samples
        with serving(tmp_path, folders[name]) as server:
            result = infer(server, name, {tensor: (array, "BYTES")}, binary=True)
        servable = load(folders[name])
        expected = servable.compute(servable.pack_samples(samples).tensors)["logits"]
        assert np.array_equal(result.as_numpy("logits"), expected)
